"""Normals turned to one side, and open surfaces."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unrender import (
    FitMesh,
    PointCloud,
    fit_mesh,
    genus,
    is_watertight,
    sample_points_from_mesh,
    save_cloud,
    surface_area,
    torus,
)
from unrender.cli.main import main
from unrender.kernels.nearest import nearest
from unrender.tasks.mesh.initial_mesh import initial_mesh
from unrender.tasks.mesh.measure_mesh import measure_mesh
from unrender.tasks.mesh.prepare_cloud import prepare_cloud

AREAS = {
    "terrain": 4.13,
    "steep hills": 5.62,
    "half pipe": 4 * math.pi,
    "bowl": 5.13,
    "ground and walls": 12.0,
}
"""True areas of the sheets."""
SHORT = FitMesh(steps=12, max_vertices=3000, smoothness=1e-8)


def scanned_torus(count: int = 1200) -> PointCloud:
    samples = sample_points_from_mesh(torus(), count, generator=torch.Generator().manual_seed(0))
    return PointCloud(samples.points.double(), samples.normals.double())


def sheet(kind: str, count: int = 1200) -> Tensor:
    """Points of an open surface: flat with hills, bent like half a pipe, a bowl, or the ground and two walls."""
    u, v = (
        2 * torch.rand(2, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    ).unbind()
    if kind == "terrain":
        return torch.stack([u, v, 0.15 * (3 * u).sin() * (2 * v).cos()], -1)
    if kind == "steep hills":
        return torch.stack([u, v, 0.4 * (4 * u).sin() * (3 * v).cos()], -1)
    if kind == "half pipe":
        return torch.stack([(u * math.pi / 2).cos(), (u * math.pi / 2).sin(), 2 * v], -1)
    if kind == "ground and walls":
        corner = torch.stack([u + 1, v + 1, torch.zeros_like(u)], -1)
        return torch.cat([corner[axis::3].roll(axis, 1) for axis in range(3)])
    return torch.stack([u, v, 0.5 * (u * u + v * v)], -1)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_normals_turned_to_one_side_are_turned_back(axis: int, sign: float, caplog) -> None:
    cloud = scanned_torus()
    side = torch.where(cloud.normals[:, axis : axis + 1] * sign < 0, -1.0, 1.0)
    prepared = prepare_cloud(cloud.replace(normals=cloud.normals * side), 0.0, 100_000, 0)
    mesh = initial_mesh(prepared, "auto")
    assert genus(mesh) == 1
    assert "the given normals do not fit the points" in caplog.text
    far = nearest(mesh.vertices, prepared.points).distances.sqrt().max()
    assert float(far) < 4 * prepared.spacing


def test_right_normals_are_believed(caplog) -> None:
    mesh = initial_mesh(prepare_cloud(scanned_torus(), 0.0, 100_000, 0), "auto")
    assert genus(mesh) == 1
    assert not caplog.text


@pytest.mark.parametrize("kind", AREAS)
def test_open_surfaces_end_where_the_points_end(kind: str) -> None:
    points = sheet(kind)
    *_, last = fit_mesh(PointCloud(points), FitMesh(**{**vars(SHORT), "open": True}))
    mesh, spacing = last.result, last.cloud.spacing * last.cloud.diagonal
    assert not is_watertight(mesh)
    assert is_watertight(last.mesh)
    metrics = measure_mesh(mesh, points, observed_within=2 * spacing)
    assert metrics["observed_fraction"] > 0.97
    assert metrics["cloud_to_mesh_p95"] < 0.5 * spacing
    assert float(nearest(mesh.vertices, points).distances.sqrt().max()) < 6 * spacing
    edges = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).sort(dim=1).values.unique(dim=0)
    assert len(mesh.vertices) - len(edges) + len(mesh.faces) == 1  # a disc, without folds or holes
    assert float(surface_area(mesh)) == pytest.approx(AREAS[kind], rel=0.15)  # with a rim


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize(("options", "status"), [([], 3), (["--open"], 0)])
def test_extrapolated_surfaces_are_reported(tmp_path: Path, options: list[str], status: int, capsys) -> None:
    save_cloud(PointCloud(sheet("terrain")), tmp_path / "terrain.ply")
    command = ["fit-mesh", str(tmp_path / "terrain.ply"), "--steps", "3", "--max-vertices", "2000", *options]
    assert main([*command, "--output", str(tmp_path / "out")]) == status
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["status"] == ("unsupported" if status else "supported")
    assert metrics["watertight"] == bool(status)
    printed = capsys.readouterr()
    assert ("far from all points, and extrapolated" in printed.err) == bool(status)
    assert ("--open" in printed.err) == bool(status)
    assert "observed surface" in printed.out
