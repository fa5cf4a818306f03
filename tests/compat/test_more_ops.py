"""Operations whose values follow from their definition."""

import pytest
import torch

from unrender.compat.pytorch3d import ops
from unrender.compat.pytorch3d.common.workaround import symeig3x3
from unrender.compat.pytorch3d.loss import (
    chamfer_distance,
    point_mesh_edge_distance,
    point_mesh_face_distance,
)
from unrender.compat.pytorch3d.ops.perspective_n_points import efficient_pnp
from unrender.compat.pytorch3d.ops.utils import masked_gather
from unrender.compat.pytorch3d.renderer import Fragments, TexturesUV
from unrender.compat.pytorch3d.renderer.mesh.rasterize_meshes import barycentric_coordinates
from unrender.compat.pytorch3d.renderer.mesh.utils import Rectangle, pack_rectangles, pack_unique_rectangles
from unrender.compat.pytorch3d.renderer.utils import ndc_grid_sample, ndc_to_grid_sample_coords
from unrender.compat.pytorch3d.structures import Meshes, Pointclouds, Volumes
from unrender.compat.pytorch3d.transforms import random_rotations
from unrender.compat.pytorch3d.utils import ico_sphere
from unrender.errors import InputError


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": 3}, "Support for 1 or 2 norm, got `norm` = 3"),
        ({"point_reduction": "min"}, "point_reduction must be one of"),
        ({"batch_reduction": "max"}, "batch_reduction must be one of"),
        (
            {"x_normals": torch.rand(2, 4, 3)},
            r"`x`: Expected normals to be of shape \(2, 5, 3\), got \(2, 4, 3\)",
        ),
        ({"y_lengths": torch.tensor([6, 5])}, r"`y`: Expected lengths to be of shape \(2,\), at most 5 each"),
        ({"y": torch.rand(5, 3)}, r"`y`: Expected points to be of shape \(N, P, D\), got \(5, 3\)"),
        ({"y": [1.0]}, "`y` should be Pointclouds objects or torch.Tensor"),
    ],
)
def test_chamfer_says_which_argument_is_wrong(arguments, message):
    with pytest.raises(InputError, match=message):
        chamfer_distance(**{"x": torch.rand(2, 5, 3), "y": torch.rand(2, 5, 3), **arguments})


def test_chamfer_of_empty_clouds():
    x, y = torch.rand(2, 5, 3), torch.rand(2, 4, 3)
    distance, _ = chamfer_distance(x, y, x_lengths=torch.tensor([5, 0]), y_lengths=torch.tensor([4, 0]))
    expected, _ = chamfer_distance(x[:1], y[:1])
    torch.testing.assert_close(distance, expected / 2)


@pytest.mark.parametrize(("rows", "others"), [(0, 4), (4, 0), (0, 0)])
def test_chamfer_of_clouds_without_points_is_zero(rows, others):
    x, y = torch.rand(2, rows, 3, requires_grad=True), torch.rand(2, others, 3, requires_grad=True)
    for options in ({}, {"point_reduction": "max"}, {"point_reduction": "sum", "single_directional": True}):
        distance, _ = chamfer_distance(x, y, **options)
        distance.backward()
        assert distance.item() == 0
    assert x.grad.shape == x.shape
    first, second = chamfer_distance(x, y, point_reduction=None, batch_reduction=None)[0]
    assert (first.shape, second.shape) == ((2, rows), (2, others))
    assert ops.knn_points(x, y, K=3, return_nn=True).knn.shape == (2, rows, 3, 3)
    assert chamfer_distance(x[:0], y[:0])[0].item() == 0


def test_distances_of_empty_clouds_and_meshes_are_refused():
    ball, empty = ico_sphere(0), Meshes([torch.zeros(0, 3)], [torch.zeros(0, 3, dtype=torch.long)])
    some, none = Pointclouds([torch.rand(5, 3)]), Pointclouds([torch.zeros(0, 3)])
    for distance in (point_mesh_face_distance, point_mesh_edge_distance):
        with pytest.raises(InputError, match="pair 0 has no points"):
            distance(ball, none)
        with pytest.raises(InputError, match="pair 0 has no faces"):
            distance(empty, some)
        with pytest.raises(InputError, match="0 meshes, but 0 clouds"):
            distance(Meshes([], []), Pointclouds([]))


def test_farthest_points_are_finite():
    points = torch.rand(1, 6, 3)
    points[0, 2, 1] = torch.nan
    with pytest.raises(InputError, match="values that are not finite"):
        ops.sample_farthest_points(points, K=3)


def test_indices_of_uvs_are_in_range():
    verts, faces = torch.rand(3, 3), torch.tensor([[0, 1, 2]])
    for corners in ([0, 1, 3], [0, 1, -4]):
        with pytest.raises(InputError, match="`faces_uvs` of mesh 0 should be 0 to 2"):
            Meshes(
                [verts],
                [faces],
                TexturesUV([torch.rand(4, 4, 3)], [torch.tensor([corners])], [torch.rand(3, 2)]),
            )
    image, uvs = torch.rand(4, 4, 3), torch.rand(3, 2)
    last = [TexturesUV([image], [torch.tensor([c])], [uvs]) for c in ([0, 1, -1], [0, 1, 2])]
    weights = torch.tensor([0.2, 0.3, 0.5]).view(1, 1, 1, 1, 3)
    fragments = Fragments(torch.zeros(1, 1, 1, 1, dtype=torch.long), weights[..., 0], weights, None)
    assert torch.equal(*(textures.sample_textures(fragments) for textures in last))


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
    assert ops.vert_align(feats, cloud.points_padded(), return_packed=True)[:, 0].tolist() == [0, 3, 1.5]


def test_positions_in_ndc_of_feature_maps():
    where = torch.tensor([[2.0, 1.0], [-2.0, -1.0], [1.0, 0.5], [4.0, 0.0]])
    found = ndc_to_grid_sample_coords(where, (10, 20))
    assert found.tolist() == [[-1, -1], [1, 1], [-0.5, -0.5], [-2, 0]]
    image = torch.arange(8.0).view(1, 1, 2, 4)
    corners = torch.tensor([[[[1.5, 0.5], [-1.5, 0.5]], [[1.5, -0.5], [-1.5, -0.5]]]])
    assert ndc_grid_sample(image, corners).tolist() == [[[[0, 3], [4, 7]]]]
    with pytest.raises(InputError, match=r"takes `grid_ndc` \[1, ..., 2\]"):
        ndc_grid_sample(image, corners[..., :1])


def test_eigenvalues_have_gradients_for_both_halves():
    matrix = torch.diag(torch.tensor([1.0, 2.0, 4.0])).requires_grad_()
    values, vectors = symeig3x3(matrix + torch.tensor([[0.0, 0.1, 0], [0.1, 0, 0], [0, 0, 0]]))
    values[0].backward()
    torch.testing.assert_close(matrix.grad, matrix.grad.mT)
    assert matrix.grad[0, 1] != 0
    assert vectors.shape == (3, 3)


def test_barycentric_coordinates_of_points_in_the_plane():
    corners = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]])
    weights = torch.stack(barycentric_coordinates(torch.tensor([[0.5, 1.0], [2.0, 0.0]]), *corners), -1)
    assert weights.tolist() == [[0.5, 0.25, 0.25], [0, 1, 0]]


def test_images_are_packed_in_rows_as_wide_as_the_longest():
    assert pack_rectangles([(5, 2), (2, 5), (3, 1), (2, 1)]).total_size == (5, 5)
    same = pack_unique_rectangles([Rectangle(4, 7, 1)] * 2)
    assert same.total_size == (4, 7)
    assert [place.is_first for place in same.locations] == [True, False]


def test_normals_of_a_plane():
    torch.manual_seed(0)
    points = torch.rand(1, 60, 3) * torch.tensor([1, 1, 0.0])
    normals = ops.estimate_pointcloud_normals(points, 20, disambiguate_directions=False)
    torch.testing.assert_close(normals[0, :, 2].abs(), torch.ones(60))
    cloud = Pointclouds(points)
    assert cloud.estimate_normals(20, assign_to_self=True).shape == (1, 60, 3)
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


def test_overlap_is_the_volume_that_random_points_measure():
    torch.manual_seed(0)
    unit = torch.tensor(
        [[x, y, z] for z in (0.0, 1.0) for x, y in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))]
    )
    turns = torch.linalg.qr(torch.randn(2, 5, 3, 3, dtype=torch.float64)).Q
    origins, sizes = torch.rand(2, 5, 3).double(), 0.5 + torch.rand(2, 5, 3).double()
    boxes = (unit.double() - 0.5) * sizes[..., None, :] @ turns.mT + origins[..., None, :]
    volumes, iou = ops.box3d_overlap(*boxes.float())
    points = 4 * torch.rand(60_000, 3).double() - 1.5
    local = (points - origins[..., None, :]) @ turns / sizes[..., None, :]
    inside = (local.abs() < 0.5).all(-1).double()
    both = inside[0] @ inside[1].mT * 4**3 / len(points)
    torch.testing.assert_close(volumes.double(), both, atol=0.1, rtol=0)
    assert float(volumes.max()) > 0.3
    own = sizes.prod(-1)
    torch.testing.assert_close(
        iou.double(), volumes / (own[0][:, None] + own[1] - volumes), atol=1e-5, rtol=0
    )
    assert ops.box3d_overlap(boxes[0].float(), boxes[0, :0].float())[0].shape == (5, 0)


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


def test_cubify_lists_the_faces_voxel_by_voxel():
    voxels = torch.zeros(1, 1, 2, 2)
    voxels[0, 0, 0, 0] = voxels[0, 0, 1, 1] = 1
    mesh = ops.cubify(voxels, 0.5)
    assert mesh.faces_packed()[:12].max() == 7
    assert mesh.faces_packed()[12:].min() == 6  # both voxels have an edge in common


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
    assert float(found.err_2d.max()) < 1e-4
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
