import pytest
import torch

from check_kernel import check_kernel
from unrender.geometry.shapes import cube, ico_sphere
from unrender.geometry.topology import topology
from unrender.kernels.edge_loss import edge_loss
from unrender.kernels.normal_consistency import normal_consistency
from unrender.kernels.surface_samples import draw_on_surface
from unrender.kernels.uniform_laplacian import uniform_laplacian_loss
from unrender.kernels.vertex_normals import normals_of_vertices

SPHERE = ico_sphere(1)


def bumpy(*batch):
    """Return vertices of a sphere, moved at random, and two that no face has."""
    generator = torch.Generator().manual_seed(0)
    vertices = torch.cat([SPHERE.vertices, torch.zeros(2, 3)])
    return vertices + 0.1 * torch.randn(*batch, *vertices.shape, generator=generator)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("target_length", [0.0, 0.3])
def test_edge_loss_agrees_with_the_reference(batch, target_length):
    edges = topology(SPHERE.faces).edges
    check_kernel(lambda v: edge_loss(v, edges, target_length), [bumpy(*batch)])


@pytest.mark.parametrize("batch", [(), (2,)])
def test_normal_consistency_agrees_with_the_reference(batch):
    flipped = torch.cat([SPHERE.faces[:40], SPHERE.faces[40:].flip(1)])
    found = topology(flipped)
    sides, signs = found.hinge_faces, found.hinge_signs
    check_kernel(lambda v: normal_consistency(v, flipped, sides, signs), [bumpy(*batch)])


@pytest.mark.parametrize("batch", [(), (2,)])
def test_uniform_laplacian_agrees_with_the_reference(batch):
    edges = topology(SPHERE.faces).edges
    check_kernel(lambda v: uniform_laplacian_loss(v, edges), [bumpy(*batch)])


@pytest.mark.parametrize("batch", [(), (2,)])
def test_vertex_normals_agree_with_the_reference(batch):
    check_kernel(lambda v: normals_of_vertices(v, SPHERE.faces), [bumpy(*batch)])


@pytest.mark.parametrize(
    "faces", [SPHERE.faces[:, :0].new_zeros(0, 3), SPHERE.faces[:1], SPHERE.faces[:1].int()]
)
def test_meshes_of_few_faces(faces):
    found = topology(faces)

    def losses(v):
        smooth = normal_consistency(v, faces, found.hinge_faces, found.hinge_signs)
        return edge_loss(v, found.edges, 0.0) + smooth + uniform_laplacian_loss(v, found.edges) + 0 * v.sum()

    check_kernel(losses, [bumpy()])


def test_degenerate_faces_have_finite_gradients():
    found, collapsed = topology(SPHERE.faces), bumpy()
    collapsed[SPHERE.faces[0]] = collapsed[0].clone()

    def losses(v):
        smooth = normal_consistency(v, SPHERE.faces, found.hinge_faces, found.hinge_signs)
        return smooth + edge_loss(v, found.edges, 0.2) + uniform_laplacian_loss(v, found.edges)

    check_kernel(losses, [collapsed], ties=True)
    check_kernel(lambda v: normals_of_vertices(v, SPHERE.faces), [collapsed], ties=True)


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("mesh", [SPHERE, cube()], ids=["sphere", "cube"])
def test_surface_samples_agree_with_the_reference(batch, mesh):
    generator = torch.Generator().manual_seed(1)
    jitter = torch.rand(*batch, 100, generator=generator, dtype=torch.float64)
    uv = torch.rand(2, *batch, 100, generator=generator)
    noise = 0.1 * torch.randn(*batch, *mesh.vertices.shape, generator=generator)

    def draw(vertices):
        samples = draw_on_surface(vertices, mesh.faces, jitter, uv.to(vertices))
        return samples.points, samples.normals, samples.barycentric, samples.face_ids

    check_kernel(draw, [mesh.vertices + noise])


def test_points_alone_have_gradients():
    jitter, uv = torch.rand(50, dtype=torch.float64), torch.rand(2, 50)
    check_kernel(lambda v: draw_on_surface(v, SPHERE.faces, jitter, uv.to(v)).points, [bumpy()])
