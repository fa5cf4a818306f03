import json
import shutil
import struct
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from unrender import FileFormatError, InputError, load_scene, save_video
from unrender.cli.import_photos import _photos_in
from unrender.cli.main import main
from unrender.io.video_frames import save_sharpest_frames
from unrender.tasks.scene.register_photos import RegisterPhotos, Registration, _by_size, register_photos

SHARED = Path(__file__).parents[4] / "shared/data/colmap_photos"
NAMES = [f"{i}.jpg" for i in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)]


def aligned_errors(found: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Distances after the best rotation, scale and shift (Umeyama 1991)."""
    a, b = found - found.mean(0), truth - truth.mean(0)
    left, stretch, right = torch.linalg.svd(b.T @ a)
    sign = torch.ones(3, dtype=a.dtype)
    sign[2] = torch.linalg.det(left @ right).sign()
    scale = (stretch * sign).sum() / a.square().sum()
    return (scale * a @ (left * sign @ right).T - b).norm(dim=-1)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="no shared data")
def test_photos_are_placed_as_in_their_own_model(tmp_path, capsys):
    pytest.importorskip("pycolmap")
    (tmp_path / "photos").mkdir()
    for name in NAMES:
        shutil.copyfile(SHARED / "images" / name, tmp_path / "photos" / name)
    lens = ["--no-one-camera", "--lens", "SIMPLE_PINHOLE"]
    assert main(["import", str(tmp_path / "photos"), *lens, "--output", str(tmp_path / "out")]) == 0
    assert "registered 12 of 12 photos" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["registered_fraction"] == 1
    assert 0.2 < metrics["reprojection_error"] < 1
    truth = {frame.name: frame.camera.position.double() for frame in load_scene(SHARED).frames}
    scene = load_scene(tmp_path / "out")
    assert scene.bounds_from == "points"
    positions = torch.stack([frame.camera.position.double() for frame in scene.frames])
    expected = torch.stack([truth[frame.image_path.name] for frame in scene.frames])
    errors = aligned_errors(positions, expected)
    size = (expected - expected.mean(0)).norm(dim=-1).max()
    print(
        f"errors in % of the scene's size: median {100 * errors.median() / size}, max {100 * errors.max() / size}"
    )
    assert float(errors.median() / size) < 0.02
    assert float(errors.max() / size) < 0.06
    assert [frame.split for frame in scene.frames].count("test") == 2
    assert not (tmp_path / "out/features.db").exists()


def test_invalid_input(tmp_path, monkeypatch, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    assert main(["import", str(photos)]) == 2
    assert "0 photos (.png, .jpg," in capsys.readouterr().err
    assert main(["import", str(tmp_path / "nothing.txt")]) == 2
    assert "give a folder of photos, or a video" in capsys.readouterr().err
    for i in range(2):
        Image.new("RGB", (64, 64)).save(photos / f"{i}.png")
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    assert main(["import", str(photos), "--output", str(tmp_path / "out")]) == 2
    assert "pip install 'unrender[photos]'" in capsys.readouterr().err
    with pytest.raises(InputError, match="`max_size` and `max_features`"):
        RegisterPhotos(max_size=1)
    with pytest.raises(InputError, match="pip install"):
        next(register_photos([photos / "0.png", photos / "1.png"], tmp_path))


@pytest.mark.slow
def test_photos_of_nothing_cannot_be_placed(tmp_path, capsys):
    pytest.importorskip("pycolmap")
    (tmp_path / "photos").mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (120, 160, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{i}.png")
    assert main(["import", str(tmp_path / "photos"), "--output", str(tmp_path / "out")]) == 1
    assert "no photo could be registered" in capsys.readouterr().out


def test_advice():
    good = Registration((), 10, 0.5, 100, None)
    assert "only 0 of 10 photos could be registered" in good.advice


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.bit_rate = 8_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def test_the_sharpest_frame_of_each_interval(tmp_path):
    checks = np.kron(np.indices((12, 16)).sum(0) % 2, np.ones((8, 8)))[..., None].repeat(3, -1) * 160
    frames = [(checks if i in (2, 5) else np.full_like(checks, 120) + i).astype(np.uint8) for i in range(8)]
    write_video(tmp_path / "video.mp4", frames)
    saved = save_sharpest_frames(tmp_path / "video.mp4", tmp_path, 2)
    assert [path.name for path in saved] == ["frame_0000.jpg", "frame_0001.jpg"]
    for path in saved:
        assert abs(np.asarray(Image.open(path)).astype(float) - checks).mean() < 12
    assert len(save_sharpest_frames(tmp_path / "video.mp4", tmp_path, 50)) == 8


def test_a_damaged_video(tmp_path):
    (tmp_path / "video.mp4").write_bytes(b"not a video" * 50)
    with pytest.raises(FileFormatError, match=r"video\.mp4: damaged"):
        save_sharpest_frames(tmp_path / "video.mp4", tmp_path, 2)


def test_photos_in_subfolders(tmp_path, capsys):
    for name in (
        "a.jpg",
        "left/1.jpg",
        "right/1.JPG",
        "._a.jpg",
        ".trash/2.jpg",
        "masks/a.jpg",
        "scene/images/a.jpg",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "scene/transforms.json").write_text("{}")
    (tmp_path / "b.NEF").write_bytes(b"raw")
    found = _photos_in(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.jpg", "left/1.jpg", "right/1.JPG"]
    out = capsys.readouterr().out
    assert "2 of 3 photos are in subfolders" in out
    assert "skipped 1 file in formats that are not read (.NEF)" in out


def test_photos_of_several_sizes_have_several_cameras(tmp_path, caplog):
    exif = Image.Exif()
    exif[0x0112] = 6
    for i, (size, orientation) in enumerate([((8, 6), None), ((6, 8), None), ((8, 6), exif), ((8, 6), None)]):
        Image.new("RGB", size).save(tmp_path / f"{i}.jpg", **({"exif": exif} if orientation else {}))
    names = [f"{i}.jpg" for i in range(4)]
    assert _by_size(tmp_path, names) == [["0.jpg", "3.jpg"], ["1.jpg"], ["2.jpg"]]
    assert "3 sizes or orientations" in caplog.text


def test_a_video_is_turned_upright(tmp_path):
    frame = torch.zeros(32, 48, 3)
    frame[:16, :24, 0] = 1  # red at the top left
    path = tmp_path / "phone.mp4"
    save_video([frame] * 4, path, frames_per_second=4)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(
        ">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30
    )  # a quarter clockwise
    path.write_bytes(data)
    saved = save_sharpest_frames(path, tmp_path, 2)
    values = np.asarray(Image.open(saved[0]))
    assert values.shape == (48, 32, 3)
    assert values[:20, 20:, 0].mean() > 150 > 60 > values[28:, :, 0].mean()
    assert values[:20, :12, 0].mean() < 60
