"""unrender track-pose, as a user calls it."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import unrender
from unrender.cli.main import main
from unrender.geometry.camera import Camera
from unrender.geometry.simplify import cluster_vertices
from unrender.io.frame_sequences import read_frames

SIZE, NUM = 128, 5


def camera_at(frame: int) -> Camera:
    return Camera.look_at([2.0 + 0.05 * frame, 1.2, 3.0], fov_degrees=45.0, height=SIZE, width=SIZE)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Write the object, frames of it before a green wall, and its pose in the first one."""
    mesh = cluster_vertices(unrender.demo_object(), 20).to(torch.float32)
    unrender.save_mesh(mesh, tmp_path / "object.ply")
    (tmp_path / "frames").mkdir()
    wall = (0.2, 0.6, 0.2)
    for frame in range(NUM):
        image = unrender.render_mesh(mesh, camera_at(frame), background=wall, supersampling=2)
        unrender.save_image(image.clamp(0, 1), tmp_path / f"frames/{frame:03d}.png")
    (tmp_path / "guess.json").write_text(
        json.dumps({"camera_from_object": camera_at(0).camera_from_world.tolist()})
    )
    return tmp_path


def run(files: Path, *options: str) -> int:
    arguments = ["track-pose", str(files / "object.ply"), str(files / "frames"), "--fov-degrees", "45"]
    return main([*arguments, "--output", str(files / "run"), *options])


def test_run_folder(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "frames/002.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    unrender.save_image(torch.zeros(SIZE, SIZE // 2, 3), files / "frames/005.png")
    assert run(files, "--guess", str(files / "guess.json"), "--tum") == 0
    folder = files / "run"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("config.json", "curves.json", "metrics.json", "overlay.mp4"),
        *("poses.jsonl", "poses_bop.csv", "report.html", "trajectory.txt"),
    }
    captured = capsys.readouterr()
    assert captured.err.count("frame 2 skipped") == 1
    assert captured.err.count("frame 5 skipped: it has 64 × 128 pixels, another aspect ratio than") == 1
    lines = [json.loads(line) for line in (folder / "poses.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 3, 4]
    assert {line["status"] for line in lines} == {"tracked"}
    found = torch.tensor(lines[-1]["camera_from_object"])
    assert float((found[:3, 3] - camera_at(4).camera_from_world[:3, 3]).norm()) < 0.1
    rows = (folder / "poses_bop.csv").read_text().splitlines()
    assert rows[0] == "scene_id,im_id,obj_id,score,R,t,time"
    assert len(rows) == 5
    trajectory = np.loadtxt(folder / "trajectory.txt")
    np.testing.assert_allclose(trajectory[-1, 1:4], camera_at(4).position.numpy(), atol=0.15)
    assert len(list(read_frames(folder / "overlay.mp4"))) == 4


def test_the_pose_in_the_first_frame_is_required(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(files) == 2
    error = capsys.readouterr().err
    assert "--guess" in error
    assert error.startswith("unrender track-pose: the pose in the first frame")


def test_a_run_without_an_initial_pose_leaves_no_folder(files: Path) -> None:
    mask = torch.zeros(SIZE, SIZE, 3)
    mask[::9, 40:60] = 1
    unrender.save_image(mask, files / "mask.png")
    assert run(files, "--mask", str(files / "mask.png")) == 2
    assert not (files / "run").exists()


def test_a_depth_image_that_cannot_be_read_is_ignored(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "depth").mkdir()
    for frame in range(NUM):
        np.save(files / f"depth/{frame}.npy", np.full((SIZE, SIZE), 3.9, np.float32))
    (files / "depth/3.npy").write_bytes(b"broken")
    options = ("--no-overlay", "--resolution", "64", "--depth", str(files / "depth"))
    run(files, "--guess", str(files / "guess.json"), *options)
    assert capsys.readouterr().err.count("depth ignored") == 1
    assert len((files / "run/poses.jsonl").read_text().splitlines()) == NUM


def test_a_folder_without_images(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "empty").mkdir()
    arguments = ["track-pose", str(files / "object.ply"), str(files / "empty"), "--fov-degrees", "45"]
    assert main([*arguments, "--guess", str(files / "guess.json")]) == 2
    assert "no images" in capsys.readouterr().err


def test_depth_images_are_one_for_each_frame(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "depth").mkdir()
    assert run(files, "--guess", str(files / "guess.json"), "--depth", str(files / "depth")) == 2
    assert "0 depth images for 5 frames" in capsys.readouterr().err


def test_time_stamps_of_a_video_with_a_variable_frame_rate(tmp_path: Path) -> None:
    times = [0, 2, 3, 9]
    with av.open(str(tmp_path / "video.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", 30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * time, np.uint8), "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = list(read_frames(tmp_path / "video.mp4"))
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    assert [frame.seconds for frame in frames] == pytest.approx([time / 30 for time in times], abs=1e-3)
