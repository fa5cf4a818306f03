"""Names in scenes and camera files do not lead out of --output."""

import json
from pathlib import Path

import pytest
import torch

import launched
from scene_files import cameras, pixels, write_image, write_json, write_nerfstudio
from unrender import SceneBox, SparseVoxels, save_cameras, save_field, save_transforms
from unrender.cli.main import main
from unrender.data.frames import Frame
from unrender.runs.folder import RUN_FORMAT

CODE = """
import os, sys
from unrender.cli.main import main
os.chdir(sys.argv.pop(1))
sys.exit(main())
"""
"""Runs a command in a folder, with streams that have to take any character."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run on a scene whose images lie elsewhere, under absolute paths with equal stems."""
    folder, scene = tmp_path / "cube", tmp_path / "scene"
    folder.mkdir()
    scene.mkdir()
    frames = []
    for i, camera in enumerate(cameras(4)):
        path = tmp_path / "data" / f"cam{i}" / "0000.png"
        write_image(path, pixels(i))
        frames.append(Frame(str(path), camera, path, "test"))
    save_transforms(frames, scene / "transforms.json")
    content = json.loads((scene / "transforms.json").read_text())
    for values, frame in zip(content["frames"], frames, strict=True):
        values["file_path"] = str(frame.image_path)
    content["test_filenames"] = [str(frame.image_path) for frame in frames]
    write_json(scene / "transforms.json", content)
    save_cameras(frames, folder / "cameras.json")
    mask = torch.ones(4, 4, 4, dtype=torch.bool)
    field = SparseVoxels.from_mask(mask, SceneBox.cube(torch.zeros(3), 0.5), opacity=0.97)
    save_field(field, folder / "volume.safetensors")
    config = {"format": RUN_FORMAT, "task": "fit-volume", "scene": str(scene), "background": None}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def files(folder: Path, out: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and out not in path.parents
    }


def test_absolute_paths_with_equal_stems(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = files(tmp_path, out)
    assert main(["eval", str(run), "--output", str(out)]) == 0
    assert files(tmp_path, out) == before
    names = [path.name for path in sorted((out / "views").glob("*.png"))]
    assert len(names) == 4
    assert {path.stem for path in (out / "views").iterdir()} == {Path(name).stem for name in names}
    assert all(name.endswith(f"_data_cam{i}_0000.png") for i, name in enumerate(names))


def test_camera_files_with_names_that_climb(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = ["..", "/x1/a.png", "../../b.png", "", ".hidden.png", f"{'long' * 80}.png", "nul.png", str(run)]
    path = tmp_path / "p.json"
    save_cameras([Frame("a", camera, tmp_path / "a") for camera in cameras(len(names))], path)
    content = json.loads(path.read_text())
    shared = {key: value for key, value in content.items() if key != "frames"}
    frames = [
        {**shared, **values, "file_path": name} for values, name in zip(content["frames"], names, strict=True)
    ]
    write_json(path, {"frames": frames})
    before = files(tmp_path, out)
    assert main(["depth", str(run), "--path", str(path), "--output", str(out), "--size", "8"]) == 0
    assert files(tmp_path, out) == before
    written = sorted(path.name for path in (out / "depth").iterdir())
    assert len(written) == len(names)
    assert all((out / "depth" / name / "depth.json").is_file() for name in written)
    assert not [name for name in written if name.startswith(".")]


@pytest.mark.parametrize("command", ["inspect", "fit-volume"])
def test_names_that_are_not_unicode(tmp_path: Path, command: str) -> None:
    """Such as those of files in Latin-1: Python reads their bytes as lone surrogates."""
    views = cameras(4)
    content = write_nerfstudio(tmp_path / "scene", views)
    for i, values in enumerate(content["frames"]):
        values["file_path"] = f"\udce9/images/{i:03d}.png"
        values["mask_path"] = "caf\udce9.png"
    write_json(tmp_path / "scene/transforms.json", content)
    options = ["--steps", "2", "--resolution", "16", "--no-video"] if command == "fit-volume" else []
    process = launched.Forked(["-c", CODE, str(tmp_path), command, "scene", "--output", "out", *options])
    _, err = process.communicate(timeout=launched.SECONDS)
    assert process.returncode == 0, err
    assert rb"\udce9" in (tmp_path / "out/report.html").read_bytes()
