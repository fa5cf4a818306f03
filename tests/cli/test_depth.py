"""unrender depth and unrender export, from the command line."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scene_files import cameras
from unrender import (
    Frame,
    SceneBox,
    SparseVoxels,
    load_cameras,
    load_cloud,
    load_depth_views,
    load_mesh,
    save_cameras,
    save_demo_scene,
    save_field,
)
from unrender.cli.main import main
from unrender.reports import depth_report
from unrender.runs import depth_sources
from unrender.runs.folder import RUN_FORMAT


def write_run(folder, opacity=0.97, size=0.125):
    """Write a run with a cube at the origin and nine cameras, three of them test views."""
    folder.mkdir()
    splits = ["test", "train", "train"]
    views = [camera.resize(36, 48) for camera in cameras(9)]
    frames = [
        Frame(f"images/{i}.png", view, folder / f"images/{i}.png", splits[i % 3])
        for i, view in enumerate(views)
    ]
    save_cameras(frames, folder / "cameras.json")
    mask = torch.ones(8, 8, 8, dtype=torch.bool)
    field = SparseVoxels.from_mask(mask, SceneBox.cube(torch.zeros(3), 4 * size), opacity=opacity)
    save_field(field, folder / "volume.safetensors")
    config = {"format": RUN_FORMAT, "task": "fit-volume", "scene": "gone", "background": [1.0, 1.0, 1.0]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "cube")


def folders(out) -> list[str]:
    return sorted(path.name for path in (out / "depth").iterdir())


def test_depth_of_test_views(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["depth", str(run), "--output", str(out), "--format", "png16", "exr", "--scale", "0.01"]) == 0
    assert {path.name for path in out.iterdir()} == {"config.json", "metrics.json", "report.html", "depth"}
    assert folders(out) == ["0", "3", "6"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["views"] == 3
    assert 0.02 < metrics["valid_fraction"] < 0.6
    z = np.load(out / "depth" / "3" / "median_z.npy")
    stored = np.asarray(Image.open(out / "depth" / "3" / "median_z.png"))
    valid = np.asarray(Image.open(out / "depth" / "3" / "valid.png")) > 0
    assert np.abs(stored * 0.01 - z)[valid].max() < 0.0051
    assert not stored[~valid].any()
    assert 2 < z[18, 24] < 3.2
    assert str(out / "report.html") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--names", "4.png"], ["4"]),
        (["--names", "images/1.png", "2"], ["1", "2"]),
        (["--path", "train"], ["1", "2", "4", "5", "7", "8"]),
        (["--path", "train", "--views", "2"], ["1", "5"]),
        (["--path", "orbit", "--views", "2"], ["view_000", "view_001"]),
    ],
)
def test_selected_views(run, tmp_path, options, names):
    out = tmp_path / "out"
    assert main(["depth", str(run), *options, "--size", "16", "--output", str(out)]) == 0
    assert folders(out) == names
    assert np.load(out / "depth" / names[0] / "std.npy").shape == (12, 16)


def test_an_unfinished_run_keeps_its_views(run, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    command = ["depth", str(run), "--path", "train", "--output"]
    assert main([*command, str(whole)]) == 0
    assert main([*command, str(out)]) == 0
    (out / "metrics.json").unlink()
    shutil.rmtree(out / "depth/2")
    measured = []
    measure = depth_report.measure_depth

    def recorded(*arguments, **named):
        measured.append(arguments)
        return measure(*arguments, **named)

    monkeypatch.setattr(depth_report, "measure_depth", recorded)
    assert main([*command, str(out)]) == 0
    assert len(measured) == 1
    found, expected = (json.loads((folder / "metrics.json").read_text()) for folder in (out, whole))
    assert found | {"seconds_per_view": 0} == expected | {"seconds_per_view": 0}
    for path in (whole / "depth").glob("*/*.npy"):
        assert (out / path.relative_to(whole)).read_bytes() == path.read_bytes()
    figures = [(folder / "report.html").read_text().count("<figure") for folder in (out, whole)]
    assert figures[0] == figures[1] > 0


def test_ctrl_c_keeps_finished_views(run, tmp_path, monkeypatch):
    out, calls, render = tmp_path / "out", [], SparseVoxels.render

    def interrupted(*arguments, **named):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return render(*arguments, **named)

    monkeypatch.setattr(SparseVoxels, "render", interrupted)
    command = ["depth", str(run), "--path", "train", "--size", "16", "--output", str(out)]
    assert main(command) == 130
    assert folders(out) == ["1", "2"]
    assert len(load_depth_views(out)) == 2
    assert main(command) == 0
    assert len(load_depth_views(out)) > 2
    assert len(calls) == 1 + len(load_depth_views(out))
    assert main(command) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--names", "77"], "--names 77: no such view; for example images/0.png, images/1.png"),
        (["--path", "round"], "must be one of"),
        (["--path", "absent.json"], "absent.json: no such file"),
        (["--scale", "0"], "--scale 0.0: must be positive"),
        (["--scale", "1e-9", "--format", "png16"], "the largest depth, "),
        (["--threshold", "1"], "--threshold 1.0: must be between 0 and 1"),
        (["--min-opacity", "0"], "--min-opacity 0.0: must be between 0 and 1"),
        (["--views", "0"], "--views 0: must be at least 1"),
        (["--size", "9000"], "--size 9000: must be 1 to 8192 pixels"),
    ],
)
def test_invalid_options(run, tmp_path, capsys, options, message):
    assert main(["depth", str(run), *options, "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_field_without_a_surface(tmp_path, capsys):
    run, out = write_run(tmp_path / "fog", opacity=0.01), tmp_path / "out"
    assert main(["depth", str(run), "--output", str(out)]) == 2
    assert "no surface in any view: no pixel is more than 50% opaque" in capsys.readouterr().err
    assert not np.asarray(Image.open(out / "depth" / "0" / "valid.png")).any()


def test_runs_are_not_overwritten(run, capsys):
    assert main(["depth", str(run), "--output", str(run)]) == 2
    assert "is the input folder" in capsys.readouterr().err
    assert main(["export", str(run), "--output", str(run)]) == 2
    assert "is the input folder" in capsys.readouterr().err


def test_points_and_meshes_of_a_run(run, tmp_path):
    points, mesh, level = (tmp_path / name for name in ("points", "mesh", "level"))
    assert main(["export", str(run), "--tolerance", "0.05", "--output", str(points)]) == 0
    cloud = load_cloud(points / "points.ply")
    assert float(cloud.points.abs().max()) < 0.55
    assert cloud.normals is not None
    assert cloud.colors is not None
    options = ["--to", "mesh", "--voxel-size", "0.04", "--format", "glb", "--output", str(mesh)]
    assert main(["export", str(run), *options]) == 0
    assert 0.4 < float(load_mesh(mesh / "mesh.glb").vertices.abs().max()) < 0.6
    options = ["--to", "mesh", "--method", "density", "--format", "obj", "--output", str(level)]
    assert main(["export", str(run), *options]) == 0
    assert 0.4 < float(load_mesh(level / "mesh.obj").vertices.abs().max()) < 0.6
    metrics = json.loads((mesh / "metrics.json").read_text())
    assert metrics["views"] == 6
    assert metrics["faces"] > 100


@pytest.mark.parametrize("end", [OSError("killed"), KeyboardInterrupt()])
def test_an_unfinished_export_keeps_its_views(run, tmp_path, monkeypatch, end):
    whole, out = tmp_path / "whole", tmp_path / "out"
    command = ["export", str(run), "--to", "mesh", "--voxel-size", "0.1", "--output"]
    assert main([*command, str(whole)]) == 0
    measured = []
    measure = depth_sources.measure_view

    def killed(*arguments):
        if len(measured) == 2:
            raise end
        measured.append(arguments)
        return measure(*arguments)

    monkeypatch.setattr(depth_sources, "measure_view", killed)
    assert main([*command, str(out)]) == (2 if isinstance(end, OSError) else 130)
    assert sorted(path.name for path in (out / "rendered").iterdir()) == [
        "0000.safetensors",
        "0001.safetensors",
    ]
    measured[:] = [None] * 3
    assert main([*command, str(out)]) == 0
    assert len(measured) == 3 + 4  # of six
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    assert (out / "mesh.ply").read_bytes() == (whole / "mesh.ply").read_bytes()


def write_trained_run(folder, trained):
    folder.mkdir()
    save_cameras(trained.scene.frames, folder / "cameras.json")
    save_field(trained.field, folder / "field.safetensors")
    config = {"format": RUN_FORMAT, "task": "fit-nerf", "scene": "gone", "background": [1.0, 1.0, 1.0]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_depth_and_meshes_of_a_trained_field(trained, tmp_path, capsys):
    run, depths = write_trained_run(tmp_path / "run", trained), tmp_path / "depths"
    assert main(["depth", str(run), "--views", "1", "--output", str(depths)]) == 0
    (view,) = folders(depths)
    frame = next(frame for frame in trained.scene.split("test") if Path(frame.name).stem == view)
    truth, z = frame.load().depth.numpy(), np.load(depths / "depth" / view / "median_z.npy")
    valid = np.asarray(Image.open(depths / "depth" / view / "valid.png")) > 0
    there = valid & (truth > 0)
    assert np.abs(z[there] / truth[there] - 1).mean() < 0.03
    for method, options in (
        ("density", ["--voxel-size", "0.04"]),
        ("depth", ["--voxel-size", "0.05", "--views", "12"]),
    ):
        out = tmp_path / method
        options = ["--to", "mesh", "--method", method, *options, "--output", str(out)]
        assert main(["export", str(run), *options]) == 0
        mesh = load_mesh(out / "mesh.ply")
        assert 0.5 < float(mesh.vertices.abs().max()) < 1.15
        assert mesh.vertex_colors is not None
    metrics = json.loads((tmp_path / "density" / "metrics.json").read_text())
    assert metrics["density"] == pytest.approx(math.log(2) / 0.04)
    assert "surface at a density of 17.33 per world unit" in capsys.readouterr().out


def test_points_of_depth_maps(run, tmp_path):
    depths, out = tmp_path / "depths", tmp_path / "out"
    assert main(["depth", str(run), "--path", "train", "--output", str(depths)]) == 0
    for source in (depths, depths / "depth"):
        folder = out / source.name
        options = ["--tolerance", "0.05", "--format", "pcd", "--output", str(folder)]
        out.mkdir(exist_ok=True)
        assert main(["export", str(source), *options]) == 0
        assert float(load_cloud(folder / "points.pcd").points.abs().max()) < 0.55


def test_mesh_of_depth_images(tmp_path):
    scene, out = tmp_path / "scene", tmp_path / "out"
    save_demo_scene(scene, size=48, num_train=12, num_test=0)
    assert main(["export", str(scene), "--to", "mesh", "--voxel-size", "0.06", "--output", str(out)]) == 0
    mesh = load_mesh(out / "mesh.ply")
    assert 0.5 < float(mesh.vertices.abs().max()) < 1.15
    assert mesh.vertex_colors is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "obj"], "--format obj: must be one of ply, xyz, pcd, npz"),
        (["--to", "mesh", "--format", "pcd"], "--format pcd: must be one of ply, obj, glb"),
        (["--views", "1"], "--views 1: must be at least 2"),
        (["--method", "density"], "apply to --to mesh only"),
        (["--to", "mesh", "--method", "density"], "--method density needs a run with a field"),
        (["--to", "mesh", "--opacity", "0.3"], "--opacity applies to --method density only"),
        (
            ["--to", "mesh", "--method", "density", "--opacity", "1"],
            "--opacity 1.0: must be between 0 and 1",
        ),
    ],
)
def test_invalid_export_options(tmp_path, capsys, options, message):
    scene = tmp_path / "scene"
    save_demo_scene(scene, size=8, num_train=2, num_test=0)
    assert main(["export", str(scene), *options, "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_scene_without_depth(run, tmp_path, capsys):
    assert main(["export", str(tmp_path / "absent")]) == 2
    assert "no such folder" in capsys.readouterr().err
    scene = save_demo_scene(tmp_path / "scene", size=8, num_train=2, num_test=0)
    content = json.loads((scene.folder / "transforms.json").read_text())
    for frame in content["frames"]:
        del frame["depth_file_path"]
    (scene.folder / "transforms.json").write_text(json.dumps(content))
    assert main(["export", str(scene.folder), "--output", str(tmp_path / "out")]) == 2
    assert "a scene without depth images" in capsys.readouterr().err
    assert len(load_cameras(run / "cameras.json")) == 9
