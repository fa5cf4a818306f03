import pytest
import torch

from unrender.compat.pytorch3d.loss import chamfer_distance, mesh_edge_loss, point_mesh_face_distance
from unrender.compat.pytorch3d.ops import (
    SubdivideMeshes,
    corresponding_points_alignment,
    interpolate_face_attributes,
    iterative_closest_point,
    knn_gather,
    knn_points,
    sample_points_from_meshes,
)
from unrender.compat.pytorch3d.renderer import TexturesVertex
from unrender.compat.pytorch3d.structures import Meshes, Pointclouds, join_meshes_as_batch
from unrender.compat.pytorch3d.transforms import random_rotations, so3_exp_map
from unrender.compat.pytorch3d.utils import ico_sphere, torus
from unrender.errors import InputError
from unrender.kernels.closest_on_mesh import reference


def test_nearest_points_of_clouds_of_unequal_size():
    torch.manual_seed(0)
    a, b = torch.rand(2, 6, 3, requires_grad=True), torch.rand(2, 5, 3)
    lengths_a, lengths_b = torch.tensor([6, 4]), torch.tensor([5, 2])
    found = knn_points(a, b, lengths_a, lengths_b, K=3, return_nn=True)
    assert found.dists.shape == found.idx.shape == (2, 6, 3)
    expected = (a[0, :, None] - b[0]).square().sum(-1).sort(-1)
    torch.testing.assert_close(found.dists[0], expected.values[:, :3])
    assert torch.equal(found.idx[0], expected.indices[:, :3])
    assert not found.dists[1, 4:].any()
    assert not found.dists[1, :, 2].any()
    assert not found.knn[1, :, 2].any()
    assert torch.equal(found.knn[0], knn_gather(b, found.idx)[0])
    assert knn_points(a, b, K=2).dists.shape == (2, 6, 2)
    found.dists.sum().backward()
    assert a.grad.isfinite().all()


def test_points_on_surfaces():
    meshes = join_meshes_as_batch([ico_sphere(1), torus(0.3, 1.0, 5, 7)])
    meshes.textures = TexturesVertex([verts.clone() for verts in meshes.verts_list()])
    points, normals, colors = sample_points_from_meshes(meshes, 50, return_normals=True, return_textures=True)
    assert points.shape == normals.shape == colors.shape == (2, 50, 3)
    torch.testing.assert_close(colors, points)  # the vertices' colors are their places
    assert (points[0] * normals[0]).sum(-1).min() > 0.7
    empty = Meshes(
        [torch.rand(4, 3), ico_sphere(0).verts_packed()], [torch.empty(0, 3), ico_sphere(0).faces_packed()]
    )
    assert not sample_points_from_meshes(empty, 5)[0].any()
    with pytest.raises(InputError, match="empty"):
        sample_points_from_meshes(empty[0], 5)


def test_subdivides_batches_and_features():
    meshes = join_meshes_as_batch([ico_sphere(0), torus(0.3, 1.0, 5, 7)])
    finer, features = SubdivideMeshes()(meshes, meshes.verts_packed())
    assert finer.num_faces_per_mesh().tolist() == [80, 280]
    torch.testing.assert_close(features, finer.verts_packed())
    assert torch.equal(SubdivideMeshes(meshes)(meshes).faces_packed(), finer.faces_packed())


@pytest.mark.parametrize("reflected", [False, True])
def test_aligns(reflected):
    torch.manual_seed(0)
    x = torch.randn(3, 20, 3)
    R, scale, T = random_rotations(3), torch.tensor([0.5, 1.0, 2.0]), torch.randn(3, 3)
    R = -R if reflected else R
    y = scale[:, None, None] * x @ R + T[:, None]
    found = corresponding_points_alignment(x, y, estimate_scale=True, allow_reflection=reflected)
    for ours, theirs in zip(found, (R, T, scale), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    spoilt = torch.cat([y, torch.randn(3, 5, 3)], 1)
    weights = torch.ones(3, 25)
    weights[:, 20:] = 0
    longer = torch.cat([x, torch.randn(3, 5, 3)], 1)
    found = corresponding_points_alignment(
        longer, spoilt, weights, estimate_scale=True, allow_reflection=reflected
    )
    torch.testing.assert_close(found.R, R, rtol=1e-4, atol=1e-4)


def test_closest_points_lead_home():
    torch.manual_seed(0)
    x = torch.randn(1, 60, 3) * torch.tensor([1.0, 0.5, 0.2])
    R = so3_exp_map(torch.tensor([[0.1, -0.05, 0.1]]))
    y = (x @ R + 0.05)[:, torch.randperm(60)]
    solution = iterative_closest_point(x, y)
    assert solution.converged
    assert solution.rmse < 1e-4
    torch.testing.assert_close(solution.RTs.R, R, rtol=0, atol=1e-3)
    assert isinstance(iterative_closest_point(Pointclouds(x), Pointclouds(y)).Xt, Pointclouds)


def test_point_mesh_distance_is_exact_both_ways():
    torch.manual_seed(0)
    mesh, cloud = ico_sphere(2), torch.randn(80, 3)
    verts = mesh.verts_packed().clone().requires_grad_()
    points = cloud.clone().requires_grad_()
    loss = point_mesh_face_distance(Meshes([verts], mesh.faces_list()), Pointclouds([points]))
    corners = verts[mesh.faces_packed()]
    each = [reference.forward(points, one, torch.tensor([[0, 1, 2]]))[0] for one in corners]
    squared = torch.stack(each)
    expected = squared.amin(0).mean() + squared.amin(1).mean()
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(loss, [verts, points])
    theirs = torch.autograd.grad(expected, [verts, points])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_chamfer_without_reductions_and_for_clouds():
    torch.manual_seed(0)
    x, y = torch.rand(2, 6, 3), torch.rand(2, 5, 3)
    (to_y, to_x), none = chamfer_distance(x, y, batch_reduction=None, point_reduction=None)
    assert (to_y.shape, to_x.shape, none) == ((2, 6), (2, 5), None)
    each, _ = chamfer_distance(x, y, batch_reduction=None)
    torch.testing.assert_close(each, to_y.mean(1) + to_x.mean(1))
    weighted, _ = chamfer_distance(x, y, weights=torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(weighted, each[0])
    clouds = Pointclouds([x[0], x[1, :3]]), Pointclouds([y[0], y[1, :4]])
    lengths = {"x_lengths": torch.tensor([6, 3]), "y_lengths": torch.tensor([5, 4])}
    torch.testing.assert_close(chamfer_distance(*clouds)[0], chamfer_distance(x, y, **lengths)[0])
    with pytest.raises(InputError, match="Support for 1 or 2 norm"):
        chamfer_distance(x, y, norm=3)


def test_losses_of_empty_meshes_are_zero():
    nothing = Meshes([], [])
    loss = mesh_edge_loss(nothing)
    loss.backward()
    assert loss.item() == 0


def test_values_between_corners():
    values = torch.rand(4, 3, 2, requires_grad=True)
    faces = torch.tensor([[2, -1], [0, 3]]).view(1, 2, 1, 2)
    weights = torch.rand(1, 2, 1, 2, 3)
    mixed = interpolate_face_attributes(faces, weights, values)
    assert mixed.shape == (1, 2, 1, 2, 2)
    torch.testing.assert_close(mixed[0, 0, 0, 0], weights[0, 0, 0, 0] @ values[2])
    assert not mixed[0, 0, 0, 1].any()
    mixed.sum().backward()
    assert not values.grad[1].any()
