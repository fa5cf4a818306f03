"""Thin parts, handles and holes survive: the initial shape has the topology and the accuracy that the points have."""

import pytest
import torch

from thin_shapes import SHAPES
from unrender import FitMesh, fit_mesh, genus
from unrender.geometry.mesh import Mesh
from unrender.geometry.topology import connected_components
from unrender.tasks.mesh.fit_mesh import _limited
from unrender.tasks.mesh.initial_mesh import initial_mesh
from unrender.tasks.mesh.measure_mesh import distances_to_mesh, measure_mesh
from unrender.tasks.mesh.prepare_cloud import prepare_cloud


def num_bodies(mesh: Mesh) -> int:
    return len(torch.unique(connected_components(mesh.faces, len(mesh.vertices))[mesh.faces[:, 0]]))


@pytest.mark.parametrize("normals", [True, False])
@pytest.mark.parametrize("name", ["ring", "perforated plate", "comb", "coil"])
def test_the_initial_shape_resolves_what_the_points_resolve(name: str, normals: bool) -> None:
    shape = SHAPES[name]
    truth, cloud = shape.mesh(), shape.scan(8000, normals=normals)
    prepared = prepare_cloud(cloud, 0.0, 100_000, 0)
    mesh = prepared.to_world(initial_mesh(prepared, "auto"))
    assert genus(mesh) == shape.genus
    assert num_bodies(mesh) == shape.bodies
    metrics = measure_mesh(mesh, cloud.points, reference=truth)
    assert metrics["mesh_to_reference_mean"] < 0.0012 * metrics["diagonal"]
    assert metrics["reference_to_mesh_mean"] < 0.0012 * metrics["diagonal"]
    assert float(distances_to_mesh(mesh.vertices, truth).max()) < 0.01 * metrics["diagonal"]


def test_close_sheets_stay_apart_given_normals() -> None:
    shape = SHAPES["close sheets"]
    prepared = prepare_cloud(shape.scan(20_000, normals=True), 0.0, 100_000, 0)
    mesh = initial_mesh(prepared, "auto")
    assert num_bodies(mesh) == shape.bodies
    assert genus(mesh) == shape.genus


@pytest.mark.parametrize(("name", "count"), [("thin plate", 2500), ("fence", 6000)])
def test_gaps_between_points_are_no_tunnels(name: str, count: int) -> None:
    shape = SHAPES[name]
    prepared = prepare_cloud(shape.scan(count, noise=0.002), 0.0, 100_000, 0)
    assert genus(initial_mesh(prepared, "solid")) == shape.genus


def test_a_noisy_comb_keeps_its_teeth() -> None:
    shape = SHAPES["comb"]
    cloud = shape.scan(6000, noise=0.002)
    *_, last = fit_mesh(cloud, FitMesh(edge_length=0.04, steps=12))
    metrics = measure_mesh(last.result, cloud.points, reference=shape.mesh())
    assert metrics["genus"] == shape.genus
    # the error stays below the noise
    assert metrics["mesh_to_reference_mean"] < 0.002 * metrics["diagonal"]
    assert metrics["reference_to_mesh_mean"] < 0.002 * metrics["diagonal"]


def test_a_face_without_area_does_not_stop_the_others() -> None:
    mesh = SHAPES["ring"].mesh(0.05)
    gradients = torch.zeros_like(mesh.vertices)
    gradients[0, 0], gradients[1, 1] = 1e17, 0.1
    limited = _limited(gradients, mesh)
    assert float(limited[0].norm()) < 1e4
    assert torch.equal(limited[1:], gradients[1:])
