import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from unrender.errors import InputError
from unrender.geometry.mesh import (
    Mesh,
    enclosed_volume,
    face_areas,
    face_normals,
    join_meshes,
    surface_area,
    vertex_normals,
)
from unrender.geometry.shapes import cube, ico_sphere, torus

MEASURES = [face_normals, face_areas, vertex_normals, surface_area, enclosed_volume]


def bent_sphere(*batch, dtype=torch.float64):
    """Create a small sphere with random bumps."""
    mesh = ico_sphere(1).to(dtype)
    noise = torch.randn(*batch, *mesh.vertices.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return mesh.replace(vertices=mesh.vertices + 0.1 * noise)


def crumpled():
    """Create degenerate faces: a repeated corner, three collinear corners, and all corners in one point."""
    vertices = torch.tensor([[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]]).double()
    return Mesh(vertices, torch.tensor([[0, 0, 1], [0, 1, 2], [0, 3, 4], [0, 1, 5]]))


def test_agrees_with_reference_arrays(golden):
    arrays = golden("mesh_losses")
    mesh = Mesh(arrays["vertices"], arrays["faces"])
    torch.testing.assert_close(vertex_normals(mesh), arrays["vertex_normals"])
    torch.testing.assert_close(face_areas(mesh), arrays["face_areas"])


def test_areas_and_volume_of_a_cube():
    mesh = cube()
    assert surface_area(mesh) == pytest.approx(6)
    assert enclosed_volume(mesh) == pytest.approx(1)
    assert enclosed_volume(mesh.replace(faces=mesh.faces.flip(1))) == pytest.approx(-1)
    torch.testing.assert_close(face_areas(mesh), torch.full((12,), 0.5))
    # every face normal is an axis, pointing away from the centre
    outward = (face_normals(mesh) * mesh.vertices[mesh.faces].mean(1)).sum(-1)
    assert (outward > 0.3).all()


def test_torus_volume_is_that_of_pappus():
    mesh = torus(2.0, 0.5, segments=200, tube_segments=100)
    assert enclosed_volume(mesh) == pytest.approx(2 * math.pi**2 * 2 * 0.25, rel=2e-3)
    assert surface_area(mesh) == pytest.approx(4 * math.pi**2 * 2 * 0.5, rel=2e-3)


@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10), turns=st.integers(0, 2))
def test_similarity_transforms(scale, shift, turns):
    mesh = bent_sphere()
    moved = mesh.replace(vertices=mesh.vertices.roll(turns, -1) * scale + shift)
    torch.testing.assert_close(surface_area(moved), surface_area(mesh) * scale**2)
    torch.testing.assert_close(enclosed_volume(moved), enclosed_volume(mesh) * scale**3)
    torch.testing.assert_close(vertex_normals(moved), vertex_normals(mesh).roll(turns, -1))


@pytest.mark.parametrize("measure", MEASURES)
def test_batch_matches_single_meshes(measure):
    mesh = bent_sphere(2, 3)
    torch.testing.assert_close(measure(mesh)[1, 2], measure(mesh[1, 2]))


@pytest.mark.parametrize("measure", MEASURES)
def test_gradients(measure):
    mesh = bent_sphere(2)
    assert gradcheck(
        lambda x: measure(mesh.replace(vertices=x)), mesh.vertices.requires_grad_(), fast_mode=True
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("measure", MEASURES)
def test_degenerate_faces_give_finite_values_and_gradients(measure, dtype):
    mesh = crumpled().to(dtype)
    vertices = mesh.vertices.requires_grad_()
    values = measure(mesh.replace(vertices=vertices))
    values.square().sum().backward()
    assert values.isfinite().all()
    assert vertices.grad.isfinite().all()
    assert vertices.grad.abs().max() < 10


def test_degenerate_values_are_zero():
    assert face_areas(crumpled()).tolist() == [0, 0, 0, 0.5]
    assert face_normals(crumpled()).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert vertex_normals(crumpled())[2].tolist() == [0, 0, 0]


@pytest.mark.parametrize("measure", MEASURES)
def test_no_faces(measure):
    mesh = Mesh(torch.rand(4, 3), torch.empty(0, 3, dtype=torch.int64))
    assert not measure(mesh).any()


@pytest.mark.parametrize("measure", MEASURES)
def test_results_do_not_depend_on_the_number_of_threads(measure, assert_same_bits):
    mesh = ico_sphere(5)
    vertices = (mesh.vertices * torch.tensor([1.0, 0.7, 0.3])).requires_grad_()

    def gradient():
        values = measure(mesh.replace(vertices=vertices))
        return torch.autograd.grad((values * values).sum(), vertices)[0]

    assert_same_bits(gradient)
    assert_same_bits(lambda: measure(mesh.replace(vertices=vertices)).detach())


def test_join_meshes_keeps_every_mesh():
    parts = [cube(), ico_sphere(1), torus()]
    parts = [mesh.replace(vertex_colors=torch.rand(len(mesh.vertices), 3)) for mesh in parts]
    whole = join_meshes(parts)
    torch.testing.assert_close(surface_area(whole), sum(surface_area(mesh) for mesh in parts))
    torch.testing.assert_close(enclosed_volume(whole), sum(enclosed_volume(mesh) for mesh in parts))
    assert torch.equal(whole.vertex_colors[-len(parts[2].vertices) :], parts[2].vertex_colors)


def test_join_meshes_rejects_invalid_arguments():
    with pytest.raises(InputError, match="join_meshes: `meshes` should hold at least one mesh"):
        join_meshes([])
    with pytest.raises(
        InputError, match="1 of 2 meshes have `vertex_colors`; set them on all meshes or on none"
    ):
        join_meshes([cube(), cube().replace(vertex_colors=torch.rand(8, 3))])


def test_small_indices_work():
    mesh = cube().replace(faces=cube().faces.int())
    assert enclosed_volume(join_meshes([mesh, mesh])) == pytest.approx(2)
