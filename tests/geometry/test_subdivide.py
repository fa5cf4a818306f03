import pytest
import torch

from unrender.geometry.mesh import Mesh, enclosed_volume, surface_area
from unrender.geometry.shapes import cube, ico_sphere, torus
from unrender.geometry.subdivide import subdivide
from unrender.geometry.topology import euler_characteristic, is_watertight


@pytest.mark.parametrize("mesh", [cube(), torus(), ico_sphere(1)])
def test_same_surface_in_four_times_the_faces(mesh):
    fine = subdivide(subdivide(mesh))
    assert len(fine.faces) == 16 * len(mesh.faces)
    assert is_watertight(fine)
    assert euler_characteristic(fine) == euler_characteristic(mesh)
    torch.testing.assert_close(surface_area(fine), surface_area(mesh))
    torch.testing.assert_close(enclosed_volume(fine), enclosed_volume(mesh))
    assert torch.equal(fine.vertices[: len(mesh.vertices)], mesh.vertices)


def test_batches_and_colors():
    mesh = cube()
    colors = mesh.vertices + 0.5
    poses = torch.stack([mesh.vertices, 2 * mesh.vertices]).requires_grad_()
    fine = subdivide(Mesh(poses, mesh.faces.int(), colors))
    assert fine.faces.dtype == torch.int32
    torch.testing.assert_close(fine.vertex_colors, fine.vertices[0] + 0.5)
    torch.testing.assert_close(fine.vertices[1], 2 * fine.vertices[0])
    fine.vertices.sum().backward()
    assert poses.grad.sum().item() == pytest.approx(fine.vertices.numel())


def test_open_and_empty_meshes():
    triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    assert subdivide(triangle).vertices.shape == (6, 3)
    empty = Mesh(torch.rand(2, 3), torch.empty(0, 3, dtype=torch.int64))
    assert torch.equal(subdivide(empty).vertices, empty.vertices)


def test_results_do_not_depend_on_the_number_of_threads(assert_same_bits):
    mesh = ico_sphere(5)
    vertices = mesh.vertices.clone().requires_grad_()
    weights = torch.rand(len(subdivide(mesh).vertices), 3)

    def gradient():
        fine = subdivide(mesh.replace(vertices=vertices))
        return torch.autograd.grad((fine.vertices * weights).sum(), vertices)[0]

    assert_same_bits(gradient)
