"""Operations whose values follow from their definition."""

import pytest
import torch

from unrender.compat.pytorch3d import ops
from unrender.compat.pytorch3d.loss import chamfer_distance
from unrender.compat.pytorch3d.ops.perspective_n_points import efficient_pnp
from unrender.compat.pytorch3d.ops.utils import masked_gather
from unrender.compat.pytorch3d.structures import Meshes, Pointclouds, Volumes
from unrender.compat.pytorch3d.transforms import random_rotations
from unrender.compat.pytorch3d.utils import ico_sphere


def test_packed_and_padded():
    rows, first = torch.rand(5, 3), torch.tensor([0, 2])
    padded = ops.packed_to_padded(rows, first, 4)
    assert torch.equal(ops.padded_to_packed(padded, first, 5), rows)
    assert torch.equal(ops.padded_to_packed(padded.movedim(1, 2), first, 5, max_size_dim=2), rows)
    assert ops.packed_to_padded(rows[:, 0], first, 4).shape == (2, 4)


def test_farthest_points_of_a_batch():
    points = torch.tensor([[[0.0, 0], [1, 0], [5, 0]], [[0, 0], [9, 9], [0, 0]]])
    chosen, ids = ops.sample_farthest_points(points, torch.tensor([3, 1]), K=2)
    assert ids.tolist() == [[0, 2], [0, -1]]
    assert chosen[1].tolist() == [[0, 0], [0, 0]]
    assert ops.sample_farthest_points(points, K=[1, 3])[1].tolist() == [[0, -1, -1], [0, 1, 2]]


def test_ball_query_of_a_batch():
    points = torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [1, 0, 0]]])
    found = ops.ball_query(points, points, K=3, radius=0.2, lengths1=torch.tensor([2]))
    assert found.idx.tolist() == [[[0, 1, -1], [0, 1, -1], [-1, -1, -1]]]
    assert found.knn.shape == (1, 3, 3, 3)


def test_points_of_other_dimensions():
    torch.manual_seed(0)
    for dim in (2, 6):
        x, y = torch.rand(2, 5, dim), torch.rand(2, 7, dim)
        squared = torch.cdist(x, y).square()
        expected = (squared.amin(2).mean(1) + squared.amin(1).mean(1)).mean()
        torch.testing.assert_close(chamfer_distance(x, y)[0], expected)
        assert ops.knn_points(x, y, K=2).idx.shape == (2, 5, 2)
    turned = x @ torch.linalg.qr(torch.randn(6, 6)).Q
    aligned = ops.corresponding_points_alignment(torch.rand(1, 9, 2), torch.rand(1, 9, 2))
    assert aligned.R.shape == (1, 2, 2)
    assert turned.shape == x.shape


def test_chamfer_of_empty_clouds():
    x, y = torch.rand(2, 5, 3), torch.rand(2, 4, 3)
    distance, _ = chamfer_distance(x, y, x_lengths=torch.tensor([5, 0]), y_lengths=torch.tensor([4, 0]))
    expected, _ = chamfer_distance(x[:1], y[:1])
    torch.testing.assert_close(distance, expected / 2)


def test_laplacians_of_a_square():
    verts = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    mesh = Meshes([verts], [torch.tensor([[0, 1, 2], [0, 2, 3]])])
    dense = mesh.laplacian_packed().to_dense()
    assert dense[0].tolist() == pytest.approx([-1, 1 / 3, 1 / 3, 1 / 3])
    cotangents, inverse_areas = ops.cot_laplacian(verts, mesh.faces_packed())
    assert float(cotangents.to_dense()[0, 1]) == pytest.approx(1)  # cot 45°
    assert float(cotangents.to_dense()[0, 2]) == pytest.approx(0, abs=1e-6)
    assert inverse_areas.flatten().tolist() == pytest.approx([1, 2, 1, 2])
    assert float(ops.norm_laplacian(verts, mesh.edges_packed()).to_dense()[0, 2]) == pytest.approx(0.5**0.5)


def test_graph_convolution():
    edges, x = torch.tensor([[0, 1], [1, 2]]), torch.rand(3, 4)
    layer = ops.GraphConv(4, 2)
    neighbors = torch.stack([x[1], x[0] + x[2], x[1]])
    degree = torch.tensor([[1.0], [2], [1]])
    expected = layer.w0(x) + neighbors @ layer.w1.weight.T + degree * layer.w1.bias
    torch.testing.assert_close(layer(x, edges), expected)
    assert ops.GraphConv(4, 2, directed=True)(x[:0], edges[:0]).shape == (0, 2)


def test_vert_align():
    feats = torch.arange(4.0).view(1, 1, 2, 2)
    cloud = Pointclouds([torch.tensor([[-1.0, -1, 0], [1, 1, 0], [0, 0, 5]])])
    assert ops.vert_align(feats, cloud)[0, :, 0].tolist() == [0, 3, 1.5]
    assert ops.vert_align([feats, feats], cloud, return_packed=True).shape == (3, 2)


def test_normals_of_a_plane():
    torch.manual_seed(0)
    points = torch.rand(1, 60, 3) * torch.tensor([1, 1, 0.0])
    normals = ops.estimate_pointcloud_normals(points, 20, disambiguate_directions=False)
    torch.testing.assert_close(normals[0, :, 2].abs(), torch.ones(60))
    cloud = Pointclouds(points)
    assert cloud.estimate_normals(20, assign_to_self=True).shape == (60, 3)
    assert cloud.normals_packed() is not None


def test_points_to_volumes():
    volumes = Volumes(torch.zeros(1, 1, 3, 3, 3), torch.zeros(1, 2, 3, 3, 3))
    cloud = Pointclouds(
        [torch.tensor([[0.0, 0, 0.5], [0, 0, 0.5]])], features=[torch.tensor([[2.0, 4], [4, 0]])]
    )
    filled = ops.add_pointclouds_to_volumes(cloud, volumes)
    assert filled.densities()[0, 0, :, 1, 1].tolist() == [0, 1, 1]
    assert filled.features()[0, :, 2, 1, 1].tolist() == [3, 2]
    nearest = ops.add_pointclouds_to_volumes(cloud, volumes, mode="nearest", rescale_features=False)
    assert float(nearest.densities().sum()) == 2
    assert nearest.features().sum((2, 3, 4)).tolist() == [[6, 4]]


def test_box_overlap():
    side = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    box = torch.cat([side, side + torch.tensor([0, 0, 1.0])])
    shifted = torch.stack([box, box + 0.5, box + 3, (box - 0.5) @ random_rotations(1)[0] + 0.5])
    volumes, iou = ops.box3d_overlap(box[None], shifted)
    assert volumes[0, :3].tolist() == pytest.approx([1, 0.125, 0], abs=1e-6)
    assert iou[0, :3].tolist() == pytest.approx([1, 0.125 / 1.875, 0], abs=1e-6)
    assert 0.5 < float(volumes[0, 3]) < 1
    with pytest.raises(ValueError, match="not coplanar"):
        ops.box3d_overlap(torch.rand(1, 8, 3), box[None])


def test_cubify_one_voxel():
    voxels = torch.zeros(1, 2, 2, 2)
    voxels[0, 0, 0, 0] = 1
    mesh = ops.cubify(voxels, 0.5)
    assert mesh.verts_packed()[:3].tolist() == [[-1, -1, -1], [-1, -1, 1], [1, -1, -1]]
    assert mesh.faces_packed().tolist()[:2] == [[0, 1, 4], [1, 5, 4]]
    assert len(mesh.faces_packed()) == 12
    whole = ops.cubify(torch.ones(1, 2, 3, 4), 0.5, align="corner")
    assert len(whole.faces_packed()) == 2 * 2 * (2 * 3 + 2 * 4 + 3 * 4)
    assert float(whole.verts_packed().abs().max()) == 1
    assert ops.cubify(torch.zeros(1, 2, 2, 2), 0.5).isempty()


def test_marching_cubes_from_minus_one_to_one():
    from unrender.compat.pytorch3d.ops.marching_cubes import marching_cubes

    axis = torch.linspace(-1, 1, 20)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    verts, faces = marching_cubes(grid.norm(dim=-1)[None], 0.7)
    torch.testing.assert_close(verts[0].norm(dim=1), torch.full((len(verts[0]),), 0.7), atol=0.01, rtol=0)
    assert faces[0].dtype == torch.int64


def test_pnp_and_smoothing():
    torch.manual_seed(0)
    x, R, T = torch.randn(2, 8, 3), random_rotations(2), torch.tensor([[0.0, 0, 6]] * 2)
    seen = x @ R + T[:, None]
    found = efficient_pnp(x, seen[..., :2] / seen[..., 2:])
    torch.testing.assert_close(found.R, R, atol=2e-3, rtol=0)
    assert float(found.err_2d.max()) < 1e-6
    smooth = ops.taubin_smoothing(ico_sphere(2))
    assert float((smooth.verts_packed() - ico_sphere(2).verts_packed()).abs().max()) < 0.02
    areas, normals = ops.mesh_face_areas_normals(*ico_sphere(1).get_mesh_verts_faces(0))
    assert areas.shape == (80,)
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(80))


def test_masked_gather():
    points = torch.rand(2, 3, 2)
    assert torch.equal(
        masked_gather(points, torch.tensor([[2, -1], [0, 1]]))[0], torch.stack([points[0, 2], torch.zeros(2)])
    )
