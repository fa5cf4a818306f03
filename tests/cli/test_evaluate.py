"""unrender eval: figures of held-out views, and how they were measured."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import unrender
from ball_field import Ball
from unrender.cli import evaluate
from unrender.cli.main import main
from unrender.io.depth import MILLIMETERS, DepthFile
from unrender.reports import evaluation
from unrender.runs.folder import RUN_FORMAT

COLOR = (1.0, 0.25, 0.0)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Photos of a ball, with alpha; two of eight are for tests."""
    folder = tmp_path / "ball"
    folder.mkdir()
    frames = []
    for index in range(8):
        angle = torch.tensor(0.8 * index)
        eye = torch.stack([2 * angle.cos(), torch.tensor(0.3), 2 * angle.sin()])
        camera = unrender.Camera.look_at(eye, fov_degrees=40, height=24, width=32)
        rendered = Ball(0.5, COLOR).render(camera)
        path = folder / f"{index}.png"
        unrender.save_image(torch.cat([rendered.color, rendered.opacity[..., None]], -1), path)
        frames.append(unrender.Frame(path.name, camera, path, "test" if index in (0, 4) else "train"))
    unrender.save_transforms(frames, folder / "transforms.json")
    return folder


@pytest.fixture
def field(monkeypatch) -> Ball:
    """The field of all runs in these tests."""
    ball = Ball(0.5, COLOR)
    monkeypatch.setattr("unrender.runs.saved_run.load_field", lambda path, device: ball)
    return ball


def write_run(folder: Path, path: Path, **changes) -> Path:
    folder.mkdir()
    (folder / "field.safetensors").touch()
    config = {"format": RUN_FORMAT, "task": "fit-nerf", "scene": str(path), "background": [1, 1, 1]}
    (folder / "config.json").write_text(json.dumps(config | {"test_views": ["0.png", "4.png"]} | changes))
    return folder


def test_metrics_and_protocol(scene, field, tmp_path, capsys) -> None:
    field.color = torch.tensor([1.0, 0.25, 0.5])
    run, out = write_run(tmp_path / "run", scene), tmp_path / "out"
    assert main(["eval", str(run), "--output", str(out)]) == 0
    found = json.loads((out / "eval.json").read_text())
    how, mean, views = found["protocol"], found["mean"], found["views"]
    assert (how["split"], how["views"], how["views_in_split"]) == ("test", ["0.png", "4.png"], 2)
    assert (how["sizes"], how["background"], how["masked_views"]) == ([[32, 24]], [1.0, 1.0, 1.0], 0)
    coverage = float(field.render(unrender.load_scene(scene).frames[0].camera).opacity.mean())
    expected = -10 * torch.log10(torch.tensor(coverage * 0.25 / 3))
    assert views["0.png"]["psnr"] == pytest.approx(float(expected), abs=0.05)  # the photo is in bytes
    assert mean["psnr"] == pytest.approx((views["0.png"]["psnr"] + views["4.png"]["psnr"]) / 2)
    assert mean["num_evaluated_views"] == 2
    assert 0 < mean["ssim"] < 1
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["psnr/4.png"] == views["4.png"]["psnr"]
    assert "lpips" not in mean
    assert how["lpips"].startswith("not computed: LPIPS requires")
    report = (out / "report.html").read_text()
    assert "2 of the 2 views of the test split" in report
    assert "composited on white: 0.png, 4.png" in report
    assert "2 test views of run: PSNR" in capsys.readouterr().out
    assert len(list((out / "views").glob("*.png"))) == 2


def test_an_unfinished_evaluation_keeps_its_views(scene, field, tmp_path, monkeypatch) -> None:
    run = write_run(tmp_path / "run", scene)
    command = ["eval", str(run), "--split", "train", "--output"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main([*command, str(whole)]) == 0
    assert main([*command, str(out)]) == 0
    (out / "metrics.json").unlink()
    (out / "views/2.json").unlink()
    measured = []
    measure = evaluation.measure_view

    def recorded(field, frame, *arguments):
        measured.append(frame.name)
        return measure(field, frame, *arguments)

    monkeypatch.setattr(evaluation, "measure_view", recorded)
    assert main([*command, str(out)]) == 0
    assert measured == ["1.png", "2.png", "3.png", "6.png"]  # three are in the report
    assert (out / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()


def test_lpips_if_installed(scene, field, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(evaluate, "load_lpips", lambda: lambda image, truth: 0.125)
    assert main(["eval", str(write_run(tmp_path / "run", scene)), "--output", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out/eval.json").read_text())
    assert found["mean"]["lpips"] == 0.125
    assert "VGG" in found["protocol"]["lpips"]


def test_depth_metrics_if_the_scene_has_depth(scene, field, tmp_path) -> None:
    frames = []
    for frame in unrender.load_scene(scene).frames:
        rendered, forward = field.render(frame.camera), frame.camera.camera_from_world[2, :3]
        depth = rendered.distance * (unrender.rays_of(frame.camera).directions @ forward)
        path = scene / f"{frame.image_path.stem}.npy"
        np.save(path, (depth / MILLIMETERS).numpy())
        frames.append(dataclasses.replace(frame, depth_file=DepthFile(path, MILLIMETERS)))
    unrender.save_transforms(frames, scene / "transforms.json")
    run, out = write_run(tmp_path / "run", scene), tmp_path / "out"
    assert main(["eval", str(run), "--output", str(out)]) == 0
    depth = json.loads((out / "eval.json").read_text())["depth"]
    assert 0 < depth["depth/median/abs_rel"] < 0.02
    assert depth["depth/median/abs_rel/4.png"] < 0.02
    assert json.loads((out / "metrics.json").read_text()).items() >= depth.items()
    assert "depth/median/abs_rel<" in (out / "report.html").read_text()
    doubled = write_run(tmp_path / "doubled", scene, depth_scale=2 * MILLIMETERS)
    assert main(["eval", str(doubled), "--output", str(tmp_path / "other")]) == 0
    metrics = json.loads((tmp_path / "other" / "metrics.json").read_text())
    assert metrics["depth/median/abs_rel"] == pytest.approx(0.5, abs=0.02)


def test_views_of_another_split(scene, field, tmp_path, capsys) -> None:
    run, out = write_run(tmp_path / "run", scene), tmp_path / "out"
    assert main(["eval", str(run), "--split", "train", "--views", "3", "--output", str(out)]) == 0
    how = json.loads((out / "eval.json").read_text())["protocol"]
    assert (how["views"], how["views_in_split"]) == (["1.png", "3.png", "6.png"], 6)
    assert "3 training views of run" in capsys.readouterr().out


def test_test_views_of_the_run(scene, field, tmp_path) -> None:
    run, out = write_run(tmp_path / "run", scene, test_views=["3.png"]), tmp_path / "out"
    assert main(["eval", str(run), "--output", str(out)]) == 0
    assert json.loads((out / "eval.json").read_text())["protocol"]["views"] == ["3.png"]


def test_moved_scene(scene, field, tmp_path) -> None:
    run = write_run(tmp_path / "run", scene)
    moved = Path(shutil.move(scene, tmp_path / "elsewhere"))
    assert main(["eval", str(run), "--scene", str(moved), "--output", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"scene": "gone"}, [], "the scene gone does not exist"),
        ({"scene": None}, [], "no scene is recorded"),
        ({"test_views": ["9.png"]}, [], "no 9.png, a test view of"),
        ({"test_views": 5}, [], "config.json: damaged"),
        ({"test_views": []}, [], "no views were held out; evaluate the training views: --split train"),
        ({}, ["--split", "val"], "no views in the val split; give --split train or test"),
        ({}, ["--views", "0"], "--views 0: must be at least 1"),
        ({"task": "fit-mesh"}, [], "a run of fit-mesh has no field"),
    ],
)
def test_invalid_runs_and_scenes(scene, field, tmp_path, capsys, changes, options, message) -> None:
    run, out = write_run(tmp_path / "run", scene, **changes), tmp_path / "out"
    assert main(["eval", str(run), *options, "--output", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
