import sys

import pytest
import torch

import unrender
from unrender import InputError, Mesh
from unrender.geometry.fill_holes import boundary_loops, fill_holes
from unrender.geometry.simplify import _without_doublets, simplify_quadric
from unrender.geometry.topology import keep_faces


@pytest.fixture(scope="module")
def sphere() -> Mesh:
    mesh = unrender.ico_sphere(4)
    return mesh.replace(vertex_colors=mesh.vertices / 2 + 0.5)


def test_simplified_sphere(sphere):
    pytest.importorskip("fast_simplification")
    mesh = simplify_quadric(sphere, 400)
    assert len(mesh.faces) == 400
    assert unrender.is_watertight(mesh)
    assert unrender.is_manifold(mesh)
    assert float(unrender.enclosed_volume(mesh)) == pytest.approx(4.19, rel=0.03)
    assert (mesh.vertex_colors - (mesh.vertices / 2 + 0.5)).abs().max() < 0.1
    assert simplify_quadric(sphere, 10_000) is sphere


def test_far_away_meshes_keep_their_shape(sphere):
    pytest.importorskip("fast_simplification")
    far = sphere.replace(vertices=sphere.vertices.double() + 1e7)
    mesh = simplify_quadric(far, 400)
    assert mesh.vertices.dtype == torch.float64
    assert (mesh.vertices - 1e7).norm(dim=1).sub(1).abs().max() < 0.05


def test_pairs_of_faces_back_to_back_are_removed():
    cube = unrender.cube()
    a, b, _ = cube.faces[0]
    doublet = torch.tensor([[a, b, len(cube.vertices)], [b, a, len(cube.vertices)]])
    vertices = torch.cat([cube.vertices, cube.vertices.new_tensor([[5.0, 5.0, 5.0]])])
    mesh = _without_doublets(Mesh(vertices, torch.cat([cube.faces, doublet])))
    assert torch.equal(mesh.faces, cube.faces)
    assert torch.equal(mesh.vertices, cube.vertices)


def test_bad_numbers_of_faces_and_a_missing_package(sphere, monkeypatch):
    with pytest.raises(InputError, match="`num_faces` should be at least 4, got 0"):
        simplify_quadric(sphere, 0)
    monkeypatch.setitem(sys.modules, "fast_simplification", None)
    with pytest.raises(InputError, match=r"pip install 'unrender\[surface\]'"):
        simplify_quadric(sphere, 100)


@pytest.fixture(scope="module")
def opened(sphere) -> Mesh:
    """A sphere with one small hole and a large one."""
    centers = sphere.vertices[sphere.faces].mean(1)
    return keep_faces(sphere, (centers[:, 2] < 0.95) & (centers[:, 1] > -0.5))


def test_small_holes_are_closed_and_large_ones_are_listed(opened):
    lengths = sorted(len(loop) for loop in boundary_loops(opened))
    assert len(lengths) == 2
    found = fill_holes(opened, max_length=3.0)
    assert found.num_filled == 1
    assert found.open_lengths == [pytest.approx(6.5, abs=1.0)]
    assert len(boundary_loops(found.mesh)) == 1
    assert found.mesh.vertex_colors.shape == found.mesh.vertices.shape


def test_all_holes_closed_makes_a_watertight_mesh(opened):
    found = fill_holes(opened, max_length=100.0)
    assert found.num_filled == 2
    assert found.open_lengths == []
    assert unrender.is_watertight(found.mesh)
    assert float(unrender.enclosed_volume(found.mesh)) > 3
    assert fill_holes(found.mesh, 1.0).mesh is found.mesh


def test_outlines_that_touch_are_both_closed(sphere):
    at = int(sphere.faces[0, 0])
    around = (sphere.faces == at).any(1).nonzero()[:, 0]
    ring = sphere.faces[around]
    opposite = next(
        int(face)
        for face, corners in zip(around[1:], ring[1:], strict=True)
        if len(set(corners.tolist()) & set(ring[0].tolist())) == 1
    )
    keep = torch.ones(len(sphere.faces), dtype=torch.bool)
    keep[[int(around[0]), opposite]] = False
    found = fill_holes(keep_faces(sphere, keep), 10.0)
    assert found.num_filled == 2
    assert unrender.is_watertight(found.mesh)
