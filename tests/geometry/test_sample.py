import math

import pytest
import torch
from torch.autograd import gradcheck

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh, face_areas, face_normals
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.shapes import cube, ico_sphere


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def stretched():
    mesh = ico_sphere(2)
    return mesh.replace(vertices=mesh.vertices * torch.tensor([3.0, 1.0, 0.3]))


def test_points_match_faces_and_barycentric_coordinates():
    mesh = stretched()
    samples = sample_points_from_mesh(mesh, 500, generator=seeded())
    triangles = mesh.vertices[mesh.faces[samples.face_ids]]
    torch.testing.assert_close(samples.points, (samples.barycentric[..., None] * triangles).sum(-2))
    torch.testing.assert_close(samples.normals, face_normals(mesh)[samples.face_ids])
    torch.testing.assert_close(samples.barycentric.sum(-1), torch.ones(500))
    assert (samples.barycentric >= 0).all()


def test_faces_are_drawn_by_area():
    mesh = stretched()
    share = face_areas(mesh) / face_areas(mesh).sum()
    for count in (100, 10_000):
        drawn = sample_points_from_mesh(mesh, count, generator=seeded()).face_ids.bincount(minlength=320)
        assert (drawn - share * count).abs().max() < 2
    # few points, often: each face comes as often as its area says; χ² has mean 319 and at most deviation √638
    drawn = sum(
        sample_points_from_mesh(mesh, 50, generator=seeded(i)).face_ids.bincount(minlength=320)
        for i in range(100)
    )
    assert ((drawn - share * 5_000) ** 2 / (share * 5_000)).sum() < 319 + 5 * math.sqrt(638)


def test_points_are_uniform_in_a_face():
    triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    points = sample_points_from_mesh(triangle, 100_000, generator=seeded()).points
    torch.testing.assert_close(points.mean(0), torch.full((3,), 1 / 3), atol=5e-3, rtol=0)
    covariance = (torch.eye(3) - 1 / 3) / 12
    torch.testing.assert_close(points.T.cov(), covariance, atol=5e-3, rtol=0)


def test_same_seed_same_points():
    one, two = (sample_points_from_mesh(cube(), 50, generator=seeded(3)).points for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, sample_points_from_mesh(cube(), 50, generator=seeded(4)).points)


def test_batches_are_sampled_independently():
    mesh = cube().replace(vertices=torch.stack([cube().vertices, cube().vertices + 10]))
    samples = sample_points_from_mesh(mesh, 40, generator=seeded())
    assert samples.points.shape == (2, 40, 3)
    assert (samples.points[1] > 9).all()
    assert not torch.equal(samples.face_ids[0], samples.face_ids[1])
    assert sample_points_from_mesh(cube(), 0).points.shape == (0, 3)


def test_gradients():
    mesh = cube().to(torch.float64)
    vertices = torch.stack([mesh.vertices, mesh.vertices * 1.3]).requires_grad_()

    def points_and_normals(x):
        samples = sample_points_from_mesh(mesh.replace(vertices=x), 5, generator=seeded())
        return samples.points, samples.normals

    samples = points_and_normals(vertices)[0]
    samples.sum().backward()
    assert vertices.grad.sum().item() == pytest.approx(samples.numel())
    fixed = sample_points_from_mesh(mesh.replace(vertices=vertices), 5, generator=seeded()).face_ids
    assert fixed.shape == (2, 5)
    single = mesh.replace(faces=mesh.faces[:1])  # one face: what is drawn does not depend on the vertices
    assert gradcheck(
        lambda x: sample_points_from_mesh(single.replace(vertices=x), 5, generator=seeded()).points,
        mesh.vertices.clone().requires_grad_(),
    )


def test_degenerate_faces_are_never_sampled():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]).requires_grad_()
    mesh = Mesh(vertices, torch.tensor([[0, 0, 1], [0, 1, 2], [1, 1, 1]]))
    samples = sample_points_from_mesh(mesh, 1000, generator=seeded())
    assert (samples.face_ids == 1).all()
    (samples.points.sum() + samples.normals.sum()).backward()
    assert vertices.grad.isfinite().all()


@pytest.mark.parametrize(
    ("vertices", "faces"),
    [
        (torch.rand(3, 3), torch.empty(0, 3, dtype=torch.int64)),
        (torch.zeros(3, 3), torch.tensor([[0, 1, 2]])),
        (torch.full((3, 3), torch.nan), torch.tensor([[0, 1, 2]])),
    ],
)
def test_mesh_without_area_is_rejected(vertices, faces):
    with pytest.raises(InputError, match="`mesh` should have a positive, finite surface area"):
        sample_points_from_mesh(Mesh(vertices, faces), 10)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_results_do_not_depend_on_the_number_of_threads(batch, assert_same_bits):
    mesh = ico_sphere(5)
    vertices = mesh.vertices.expand(*batch, -1, -1).clone().requires_grad_()

    def gradient():
        samples = sample_points_from_mesh(mesh.replace(vertices=vertices), 30_000, generator=seeded())
        loss = (samples.points.square() * samples.normals).sum()
        return torch.autograd.grad(loss, vertices)[0]

    assert_same_bits(gradient)
