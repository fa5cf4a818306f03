"""Shapes, orders and errors that programs written for PyTorch3D rely on."""

import pytest
import torch

from unrender.compat.pytorch3d import ops
from unrender.compat.pytorch3d import renderer as r
from unrender.compat.pytorch3d.ops import utils as points
from unrender.compat.pytorch3d.ops.marching_cubes import marching_cubes
from unrender.compat.pytorch3d.ops.perspective_n_points import efficient_pnp
from unrender.compat.pytorch3d.ops.points_alignment import (
    corresponding_points_alignment,
    iterative_closest_point,
)
from unrender.compat.pytorch3d.ops.points_to_volumes import _points_to_volumes
from unrender.compat.pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
from unrender.compat.pytorch3d.renderer.mesh.utils import _clip_barycentric_coordinates
from unrender.compat.pytorch3d.renderer.points.rasterize_points import rasterize_points
from unrender.compat.pytorch3d.structures import Meshes, Pointclouds, join_pointclouds_as_batch
from unrender.compat.pytorch3d.transforms import so3_exp_map
from unrender.compat.pytorch3d.utils import ico_sphere


def test_marching_cubes_numbers_vertices_as_faces_use_them():
    values = torch.ones(1, 2, 2, 3)
    values[0, 0, 0, 0] = -1  # a corner of the first of two cells: the face looks away from it
    (verts,), (faces,) = marching_cubes(values, 0.5, return_local_coords=False)
    assert verts.tolist() == [[0.75, 0, 0], [0, 0.75, 0], [0, 0, 0.75]]
    assert faces.tolist() == [[0, 1, 2]]
    assert marching_cubes(values, 0.5)[0][0].tolist() == [[-0.25, -1, -1], [-1, 0.5, -1], [-1, -1, 0.5]]


def test_marching_cubes_closes_surfaces():
    torch.manual_seed(0)
    noise = torch.nn.functional.pad(torch.rand(2, 5, 6, 7), [1] * 6)
    for verts, faces in zip(*marching_cubes(noise, 0.5), strict=True):
        assert torch.equal(faces.unique(), torch.arange(len(verts)))
        highest = faces.flatten().cummax(0).values
        assert int(highest[0]) == 0
        assert int(highest.diff().max()) == 1  # each new vertex has the next number
        directed = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        assert sorted(directed.tolist()) == sorted(directed.flip(1).tolist())


def test_marching_cubes_through_grid_points_has_no_empty_faces():
    values = torch.zeros(1, 4, 4, 4)
    values[0, 1:3, 1:3, 1:3] = 2
    (verts,), (faces,) = marching_cubes(values, 2, return_local_coords=False)
    areas, _ = ops.mesh_face_areas_normals(verts, faces)
    assert len(faces) == 12
    assert areas.tolist() == [0.5] * 12
    nothing, no_faces = marching_cubes(torch.zeros(1, 2, 2, 2))
    assert nothing[0].shape == no_faces[0].shape == (0,)
    with pytest.raises(ValueError, match="`vol_batch` should be finite"):
        marching_cubes(torch.full((1, 2, 2, 2), torch.nan))


def test_lights_and_materials_broadcast():
    for lights in (
        r.PointLights(ambient_color=torch.zeros(2, 3)),
        r.DirectionalLights(ambient_color=[[0, 0, 0]] * 2),
    ):
        lights[1].ambient_color = (0.25, 0.5, 1)
        assert lights.ambient_color.tolist() == [[0, 0, 0], [0.25, 0.5, 1]]
    sun = r.DirectionalLights(diffuse_color=torch.tensor([1.0, 2, 4]), direction=torch.tensor([0.0, 0, 2]))
    up = torch.tensor([0.0, 0, 1]).view(1, 1, 3)
    assert sun.diffuse(normals=up).tolist() == [[[1, 2, 4]]] * 3
    sun.direction = torch.tensor([0.0, 3, 0])
    assert not sun.diffuse(normals=up).any()
    with pytest.raises(ValueError, match="`diffuse_color` should be \\[N, 4\\]"):
        r.Materials(ambient_color=torch.ones(1, 4))


def test_poses_of_points():
    torch.manual_seed(0)
    x, R, T = torch.randn(2, 9, 3), so3_exp_map(torch.randn(2, 3)), torch.tensor([[0.0, 0, 6]])
    y = x @ R + T
    image = y[..., :2] / y[..., 2:] + 0.01 * torch.randn(2, 9, 2)
    found = efficient_pnp(x, image)
    y_found = x @ found.R + found.T[:, None]
    distances = (y_found[..., :2] / y_found[..., 2:] - image).norm(dim=-1)
    torch.testing.assert_close(found.err_2d, distances.mean(1))


def test_clouds_on_a_line_turn_as_little_as_possible():
    line = torch.linspace(-1, 1, 5)[:, None]
    x, y = line * torch.tensor([1.0, 0, 0]), line * torch.tensor([0.0, 1, 0])
    found = corresponding_points_alignment(x[None], y[None])
    assert found.R[0].tolist() == [pytest.approx(row, abs=1e-3) for row in ([0, 1, 0], [-1, 0, 0], [0, 0, 1])]
    torch.manual_seed(0)
    cloud = torch.randn(1, 30, 2)
    turned = cloud @ torch.tensor([[0.995, 0.0998], [-0.0998, 0.995]])
    torch.testing.assert_close(iterative_closest_point(cloud, turned).Xt, turned, atol=1e-3, rtol=0)


def test_points_are_added_in_place():
    densities, features = torch.zeros(1, 1, 2, 3, 4), torch.zeros(1, 2, 2, 3, 4)
    size = torch.tensor([[2, 3, 4]])
    place, colors = torch.tensor([[[1.0, 0, -1]]]), torch.tensor([[[5.0, 7]]])
    filled = _points_to_volumes(place, colors, densities, features, size, 2.0, torch.ones(1, 1), True, True)
    assert filled[0] is densities
    assert filled[1] is features
    assert densities.nonzero().tolist() == [[0, 0, 0, 1, 3]]
    assert float(densities.sum()) == 2
    assert features[0, :, 0, 1, 3].tolist() == [10, 14]
    transposed = torch.zeros(1, 2, 4, 3, 2).transpose(2, 4)
    added, _ = ops.add_points_features_to_volume_densities_features(
        place, colors, torch.zeros(1, 1, 2, 3, 4), transposed, rescale_features=False
    )
    assert torch.equal(2 * added, features)
    assert not transposed.any()


def test_clouds_with_and_without_attributes():
    torch.manual_seed(0)
    mixed = Pointclouds([torch.rand(3, 3), torch.zeros(0, 3)], features=[torch.rand(3, 2), None])
    assert mixed.features_padded().shape == (2, 3, 2)
    assert mixed.subsample(torch.tensor([3, 1])) is mixed
    assert Pointclouds([], normals=[]).normals_list() is None
    scattered = Pointclouds([torch.rand(9, 3), torch.rand(7, 3)])
    assert scattered.estimate_normals(4, assign_to_self=True).shape == (2, 9, 3)
    assert scattered.normals_packed().shape == (16, 3)
    with pytest.raises(ValueError, match="same number of features"):
        join_pointclouds_as_batch(
            [Pointclouds(torch.rand(1, 2, 3), features=torch.rand(1, 2, n)) for n in (1, 2)]
        )


def test_private_computations_have_nothing_to_do():
    sphere = ico_sphere(0)
    sphere._compute_packed(refresh=True)
    sphere._compute_vertex_normals()
    assert sphere.num_edges_per_mesh().dtype == torch.int32
    with pytest.raises(ValueError, match="exactly one set of submeshes"):
        sphere.submeshes([])


@pytest.mark.parametrize("size", [(8, 8, 3), (0, 8), (8.5, 8.5), 0])
def test_sizes_of_images_are_two_whole_numbers(size):
    with pytest.raises(ValueError, match="`image_size` should be"):
        rasterize_meshes(ico_sphere(0), size)
    with pytest.raises(ValueError, match="`image_size` should be"):
        rasterize_points(Pointclouds([torch.rand(2, 3)]), size)


def test_what_does_not_fit():
    cloud = Pointclouds([torch.rand(4, 3)])
    with pytest.raises(ValueError, match="radius must be of shape"):
        rasterize_points(cloud, 8, [0.1, 0.2])
    with pytest.raises(ValueError, match="radius must be a float, list, tuple or tensor"):
        rasterize_points(cloud, 8, {0: 0.1})
    with pytest.raises(ValueError, match="idx format is not supported"):
        points.masked_gather(torch.rand(1, 4, 3), torch.zeros(1, 1, 1, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="same batch dimension"):
        points.masked_gather(torch.rand(2, 4, 3), torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="weights are not compatible"):
        points.wmean(torch.rand(5, 4, 3), torch.rand(5))
    for box, said in (
        (torch.rand(2, 3, 3), "Input box must be of shape"),
        (torch.rand(2, 2, 3), "Input box dimension is 2"),
        (-torch.arange(6.0).view(2, 3), "Input box is invalid"),
    ):
        with pytest.raises(ValueError, match=said):
            cloud.inside_box(box)
    padded = torch.tensor([[[0, 1, 2], [-1, -1, -1], [0, 2, 1]]])
    with pytest.raises(ValueError, match="Padding of faces"):
        Meshes(torch.rand(1, 3, 3), padded)


def test_clipping_leaves_empty_slots():
    clipped = _clip_barycentric_coordinates(torch.tensor([[-1.0, 1, 3], [-1, -1, -1]]))
    assert clipped.tolist() == [[0, 0.25, 0.75], [-1, -1, -1]]
