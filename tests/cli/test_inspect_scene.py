import json
import math

import numpy as np
import pytest
import torch

import scene_files
from unrender import Camera, load_scene
from unrender.cli.main import main
from unrender.tasks.scene.inspect_scene import find_warnings, fov_degrees, inspect_image


def suspicious(folder, views):
    scene_files.write_nerfstudio(folder, views)
    return " ".join(find_warnings(load_scene(folder)))


def ring(count=14, **changes):
    return scene_files.cameras(count, **changes)


def test_summary_and_report(tmp_path, capsys):
    scene_files.write_blender(tmp_path / "cup", ring(12))
    (tmp_path / "cup/train/r_3.png").unlink()
    (tmp_path / "cup/test/r_2.png").write_bytes((tmp_path / "cup/test/r_2.png").read_bytes()[:300])
    assert main(["inspect", str(tmp_path / "cup"), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "cup, 23 frames" in said
    assert "11 train, 0 val, 12 test" in said
    assert "1 listed but not found: ./train/r_3" in said
    assert "r_2.png: damaged" in said
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert (metrics["num_frames"], metrics["num_missing"], metrics["num_broken"]) == (23, 1, 1)
    assert metrics["fov_y_degrees_min"] == pytest.approx(50, abs=0.01)
    assert 0 < metrics["mean_alpha"] < 1
    report = (tmp_path / "out/report.html").read_text()
    assert "<svg" in report
    assert report.count("data:image/png") >= 20
    assert json.loads((tmp_path / "out/config.json").read_text())["task"] == "inspect"


def test_invalid_input_fails_with_one_line(tmp_path, capsys):
    (tmp_path / "transforms.json").write_text('{"frames": [')
    assert main(["inspect", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "transforms.json: line 1, column 13: broken JSON" in capsys.readouterr().err


def test_images_that_are_the_same_are_said(tmp_path, capsys):
    scene_files.write_nerfstudio(tmp_path / "cup", ring(12))
    images = sorted((tmp_path / "cup" / "images").iterdir())
    images[3].write_bytes(images[7].read_bytes())
    assert main(["inspect", str(tmp_path / "cup"), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    names = f"images/{images[3].name} = images/{images[7].name}"
    assert f"note: 1 image is the same as another one: {names}; list each once" in said


def test_no_warnings_for_a_ring_of_cameras(tmp_path):
    assert suspicious(tmp_path, ring()) == ""


def test_few_images(tmp_path):
    assert "only one image" in suspicious(tmp_path, ring(1))
    assert "only 5 images" in suspicious(tmp_path, ring(5))


def test_cameras_at_one_position(tmp_path):
    views = [
        Camera.look_at([5.0, 1, 2], target.tolist(), height=12, width=16) for target in torch.rand(12, 3)
    ]
    assert "all cameras share one position" in suspicious(tmp_path, views)


def test_cameras_on_one_side(tmp_path):
    eyes = torch.cartesian_prod(torch.linspace(-1, 1, 4), torch.linspace(0, 1, 3), torch.tensor([4.0]))
    views = [Camera.look_at(eye, height=12, width=16) for eye in eyes]
    assert "all views are from one side" in suspicious(tmp_path, views)
    moved = [Camera.look_at(eye, eye - eye.new_tensor([0, 0, 1]), height=12, width=16) for eye in eyes]
    assert "all cameras face the same direction" in suspicious(tmp_path, moved)


def turned(camera):
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    return camera.replace(camera_from_world=flip @ camera.camera_from_world)


def test_mixed_conventions(tmp_path):
    views = ring()
    views[3:6] = [turned(camera) for camera in views[3:6]]
    said = suspicious(tmp_path, views)
    assert (
        "facing away from the center of the others: 3 frames (images/003.png, images/004.png, images/005.png)"
        in said
    )
    assert (
        "upside down relative to the others: 3 frames (images/003.png, images/004.png, images/005.png)"
        in said
    )


def test_wrong_convention(tmp_path):
    assert "all cameras face away from a common center" in suspicious(tmp_path, [turned(c) for c in ring()])


def test_outliers_duplicates_and_unusual_intrinsics(tmp_path):
    views = ring()
    views[2] = Camera.look_at([90.0, 0, 0], height=12, width=16)
    views[5] = views[4]
    views[7] = views[7].replace(center=torch.tensor([2.0, 6.0]))
    views[8] = views[8].replace(focal=torch.tensor([1000.0, 1000.0]))
    said = suspicious(tmp_path, views)
    assert "far away from the others: 1 frame (images/002.png)" in said
    assert "1 image has the same pose as another" in said
    assert "principal point far from the image center: 1 frame (images/007.png)" in said
    assert "field of view of 0.9 degrees: 1 frame (images/008.png)" in said


def test_scene_far_from_the_origin(tmp_path, capsys):
    shift = torch.eye(4)
    shift[:3, 3] = torch.tensor([4e5, 5e5, 0.0])
    views = [
        camera.replace(camera_from_world=camera.camera_from_world @ shift.inverse()) for camera in ring()
    ]
    assert not suspicious(tmp_path, views)
    assert main(["inspect", str(tmp_path), "--output", str(tmp_path / "out")]) == 0
    assert "subtracted from all coordinates" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["origin_x"] == pytest.approx(4e5, abs=10)
    assert metrics["bounds_low_x"] == pytest.approx(4e5, abs=10)


@pytest.mark.parametrize("shift", [0.0, 4e5])
def test_one_position_far_away(tmp_path, shift):
    views = [
        Camera.look_at([0.0, 0, 0], [math.cos(i), 0.1, math.sin(i)], height=12, width=16) for i in range(14)
    ]
    content = scene_files.write_nerfstudio(tmp_path, views)
    for i, frame in enumerate(content["frames"]):
        frame["transform_matrix"][0][3] = shift + 1e-5 * (i % 3) * (shift > 0)
    scene_files.write_json(tmp_path / "transforms.json", content)
    assert "all cameras share one position" in " ".join(find_warnings(load_scene(tmp_path)))


def test_field_of_view():
    camera = Camera.look_at([0.0, 0, 1], fov_degrees=50, height=10, width=20)
    assert fov_degrees(camera)[1] == pytest.approx(50, abs=1e-4)


def test_empty_images(tmp_path):
    scene_files.write_nerfstudio(tmp_path, ring(2), 4)
    scene_files.write_image(tmp_path / "images/000.png", np.zeros((12, 16, 4), np.uint8))
    scene_files.write_image(tmp_path / "images/001.png", np.full((12, 16, 3), 7, np.uint8))
    first, second = (inspect_image(frame) for frame in load_scene(tmp_path).frames)
    assert "frame images/000.png: its alpha is 0 everywhere" in first.problem
    assert "frame images/001.png: the image has a single color" in second.problem
