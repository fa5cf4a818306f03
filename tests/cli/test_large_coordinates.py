"""Runs in UTM coordinates: commands give the same as near the origin, in the coordinates of the scene."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from scene_files import cameras, write_nerfstudio
from unrender import (
    Frame,
    SceneBox,
    SparseVoxels,
    load_cloud,
    load_depth_views,
    load_field,
    load_mesh,
    load_scene,
    save_cameras,
    save_field,
)
from unrender.cli.main import main
from unrender.geometry.world_origin import ZERO, WorldOrigin
from unrender.runs.folder import RUN_FORMAT

UTM = (437215.0, 4478093.0, 612.0)


def write_run(folder: Path, origin: WorldOrigin) -> Path:
    """Write a run with a cube at its origin and nine cameras, three of them test views."""
    folder.mkdir()
    frames = [
        Frame(f"{i}.png", view.resize(36, 48), folder / f"{i}.png", "train" if i % 3 else "test")
        for i, view in enumerate(cameras(9))
    ]
    save_cameras(frames, folder / "cameras.json", origin=origin)
    box = SceneBox.cube(torch.zeros(3), 0.5).replace(origin=origin)
    field = SparseVoxels.from_mask(torch.ones(8, 8, 8, dtype=torch.bool), box, opacity=0.97)
    save_field(field, folder / "volume.safetensors")
    config = {"format": RUN_FORMAT, "task": "fit-volume", "scene": "gone", "background": [1.0, 1.0, 1.0]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [write_run(tmp_path / "near", ZERO), write_run(tmp_path / "far", UTM)]


def outputs(runs: list[Path], *command: str) -> list[Path]:
    folders = [run / "-".join(part.strip("-") for part in command) for run in runs]
    for run, folder in zip(runs, folders, strict=True):
        assert main([command[0], str(run), *command[1:], "--output", str(folder)]) == 0
    return folders


def test_fields_keep_their_origin(runs: list[Path]) -> None:
    assert load_field(runs[0] / "volume.safetensors").scene_box.origin == ZERO
    assert load_field(runs[1] / "volume.safetensors").scene_box.origin == UTM


def test_views_are_the_same(runs: list[Path]) -> None:
    near, far = outputs(runs, "render", "--path", "test", "--video", "none")
    for view in sorted(near.glob("view*.png")):
        assert view.read_bytes() == (far / view.name).read_bytes()
    poses = [
        np.array([f["transform_matrix"] for f in json.loads((f / "cameras.json").read_text())["frames"]])
        for f in (near, far)
    ]
    np.testing.assert_allclose(poses[1][:, :3, 3], poses[0][:, :3, 3] + UTM, rtol=0, atol=1e-6)
    again, moved = outputs(runs, "render", "--views", "3", "--path", str(far / "cameras.json"))
    one = sorted(moved.glob("view*.png"))[0]
    assert one.read_bytes() == (near / "view_000.png").read_bytes()
    assert one.read_bytes() != (again / one.name).read_bytes()


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
def test_meshes_are_in_the_given_coordinates(runs: list[Path], suffix: str) -> None:
    for method in ("density", "depth"):
        options = ["--to", "mesh", "--method", method, "--format", suffix, "--voxel-size", "0.05"]
        near, far = (load_mesh(f / f"mesh.{suffix}").vertices for f in outputs(runs, "export", *options))
        assert far.dtype == torch.float64
        local = far - torch.tensor(UTM, dtype=torch.float64)
        for found, expected in zip(local.aminmax(dim=0), near.double().aminmax(dim=0), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_points_and_depth_maps_are_in_the_given_coordinates(runs: list[Path], tmp_path: Path) -> None:
    shift = torch.tensor(UTM, dtype=torch.float64)
    near, far = (
        load_cloud(folder / "points.ply").points
        for folder in outputs(runs, "export", "--tolerance", "0.05", "--views", "4")
    )
    for found, expected in zip((far - shift).aminmax(dim=0), near.double().aminmax(dim=0), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    depths = outputs(runs, "depth")
    for name, view in load_depth_views(depths[0]).items():
        other = load_depth_views(depths[1], origin=UTM)[name]
        assert torch.equal(view.depth, other.depth)
        torch.testing.assert_close(view.camera.position, other.camera.position, atol=1e-6, rtol=0)
    assert (
        main(
            [
                "export",
                str(depths[1]),
                "--to",
                "mesh",
                "--voxel-size",
                "0.05",
                "--output",
                str(tmp_path / "mesh"),
            ]
        )
        == 0
    )
    vertices = load_mesh(tmp_path / "mesh" / "mesh.ply").vertices - shift
    assert float(vertices.abs().max()) < 0.6


def test_a_scene_in_utm_trains_and_is_evaluated(tmp_path: Path, capsys) -> None:
    content = write_nerfstudio(tmp_path, cameras(), channels=4)
    for frame in content["frames"]:
        for row, value in zip(frame["transform_matrix"], UTM, strict=False):
            row[3] += value
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    assert main(["inspect", str(tmp_path), "--output", str(tmp_path / "i")]) == 0
    printed = capsys.readouterr().out
    assert "437215" in printed
    assert "share one position" not in printed
    options = [
        "--steps",
        "2",
        "--rays",
        "64",
        "--resolution",
        "16",
        "--no-video",
        "--no-mesh",
        "--space",
        "aabb",
    ]
    assert main(["fit-volume", str(tmp_path), *options, "--output", str(tmp_path / "run")]) == 0
    scene = load_scene(tmp_path)
    assert load_field(tmp_path / "run" / "volume.safetensors").scene_box.origin == scene.origin
    assert main(["eval", str(tmp_path / "run"), "--output", str(tmp_path / "eval")]) == 0
    first, again = (
        json.loads((tmp_path / name / "metrics.json").read_text())["psnr"] for name in ("run", "eval")
    )
    assert first == pytest.approx(again, abs=1e-6)
