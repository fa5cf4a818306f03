"""Depths of many views: what they agree on, how far they are apart, and the surface between them."""

import math

import pytest
import torch

from unrender import (
    Camera,
    DepthView,
    InputError,
    Lens,
    SceneBox,
    SparseVoxels,
    closest_on_mesh,
    demo_object,
    depth_errors,
    evaluate_depth,
    fuse_depths,
    points_from_views,
    render_depth,
    render_mesh,
    save_demo_scene,
    view_consistency,
)
from unrender.geometry.simplify import cluster_vertices
from unrender.geometry.topology import keep_largest_component
from unrender.tasks.depth.view_consistency import nearest_cameras, sample_depth, unproject_view


def eyes(count: int) -> list[Camera]:
    angles = torch.arange(count) * 2 * math.pi / count
    places = torch.stack([3 * angles.cos(), 1.5 * (2 * angles).sin(), 3 * angles.sin()], -1)
    return [Camera.look_at(place, fov_degrees=42, height=96, width=96) for place in places]


@pytest.fixture(scope="module")
def mesh():
    return cluster_vertices(demo_object(), 40).to(torch.float32)


@pytest.fixture(scope="module")
def views(mesh):
    return [
        DepthView(camera, render_depth(mesh, camera), render_mesh(mesh, camera).clamp(0, 1)[..., :3])
        for camera in eyes(14)
    ]


def distances(points, mesh):
    return closest_on_mesh(points, mesh.vertices, mesh.faces).squared_distances.sqrt()


def test_points_of_true_depth_lie_on_the_surface(views, mesh):
    cloud = points_from_views(views)
    assert len(cloud.points) > 0.5 * sum(int((view.depth > 0).sum()) for view in views)
    assert float(distances(cloud.points, mesh).max()) < 1e-3
    outward = (cloud.points * cloud.normals).sum(-1)
    assert float((outward > 0).float().mean()) > 0.75
    torch.testing.assert_close(cloud.normals.norm(dim=-1), torch.ones(len(cloud.points)))
    assert cloud.colors.shape == cloud.points.shape


def test_the_surface_ends_where_few_views_show_it(views):
    whole, part = (fuse_depths(views, voxel_size=0.06, min_views=number) for number in (1, 3))
    assert 0.3 < len(part.faces) / len(whole.faces) < 0.95
    with pytest.raises(InputError, match="no consistent surface"):
        fuse_depths(views, voxel_size=0.06, min_views=len(views) + 1)
    with pytest.raises(InputError, match="`min_views` should be at least 1"):
        fuse_depths(views, min_views=0)


def test_what_views_do_not_agree_on_is_dropped(views, mesh):
    generator = torch.Generator().manual_seed(0)
    wrong = []
    for view in views:
        far = view.depth * (1 + 0.3 * (torch.rand(view.depth.shape, generator=generator) < 0.05))
        wrong.append(view.replace(depth=far))
    cloud = points_from_views(wrong)
    error = distances(cloud.points, mesh)
    assert float((error > 0.05).float().mean()) < 0.001
    assert len(cloud.points) > 10_000


def test_a_cube_keeps_one_point(views):
    cloud, thin = points_from_views(views), points_from_views(views, spacing=0.1)
    assert 200 < len(thin.points) < len(cloud.points) / 10
    cells = ((thin.points - cloud.points.amin(0)) / 0.1).floor()
    assert len(cells.unique(dim=0)) > 0.99 * len(cells)


def test_a_lens_changes_nothing(views, mesh):
    lens = Lens.brown([-0.08, 0.01], [0.001, -0.001])
    bent = [view.replace(camera=view.camera.replace(lens=lens)) for view in views]
    bent = [  # what the bent camera sees: the depth of the straight one, where its rays go
        DepthView(view.camera, sample_depth(straight, _far_points(view.camera)).measured.view(96, 96))
        for view, straight in zip(bent, views, strict=True)
    ]
    cloud = points_from_views(bent)
    assert len(cloud.points) > 10_000
    assert float(distances(cloud.points, mesh).mean()) < 0.01


def _far_points(camera):
    view = DepthView(camera, torch.ones(96, 96))
    return unproject_view(view)[0]


def test_the_fused_mesh_is_the_surface(views, mesh):
    fused = fuse_depths(views, voxel_size=0.03)
    assert float(distances(fused.vertices, mesh).mean()) < 0.006
    back = distances(mesh.vertices, fused)
    assert float((back < 0.03).float().mean()) > 0.9
    normals = torch.linalg.cross(*_edges(fused))
    assert float(((normals * fused.vertices[fused.faces[:, 0]]).sum(-1) > 0).float().mean()) > 0.7
    assert len(keep_largest_component(fused).faces) > 0.8 * len(fused.faces)
    assert fused.vertex_colors.shape == fused.vertices.shape
    assert float(fused.vertex_colors.std()) > 0.05


def _edges(mesh):
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    return b - a, c - a


def test_true_views_are_consistent_and_wrong_ones_are_not(views):
    figures = view_consistency(views)
    assert figures["consistency"] < 0.005
    assert figures["consistency_fraction"] > 0.9
    larger = [view.replace(depth=view.depth * (1 + 0.1 * (i % 2))) for i, view in enumerate(views)]
    assert view_consistency(larger)["consistency"] > 5 * figures["consistency"]
    empty = [view.replace(depth=torch.zeros_like(view.depth)) for view in views]
    assert math.isnan(view_consistency(empty)["consistency"])


def test_neighbors_look_the_same_way():
    cameras = eyes(12)
    assert all(
        {(i + 1) % 12, (i - 1) % 12} == set(near) for i, near in enumerate(nearest_cameras(cameras, 2))
    )


def test_errors_are_those_of_the_formulas():
    truth = torch.tensor([2.0, 4.0, 1.0, 0.0, torch.nan, 5.0])
    estimate = torch.tensor([2.2, 4.0, 2.0, 9.0, 9.0, 9.0])
    errors = depth_errors(estimate, truth, torch.tensor([True] * 5 + [False]))
    expected = {
        "abs_rel": (0.1 + 0 + 1) / 3,
        "mae": 0.4,
        "rmse": math.sqrt((0.04 + 1) / 3),
        "delta_1.25": 2 / 3,
        "valid_fraction": 3 / 4,
    }
    assert errors == pytest.approx(expected, abs=1e-6)
    assert math.isnan(depth_errors(estimate, truth, torch.zeros(6, dtype=torch.bool))["mae"])


def test_a_field_gets_figures_for_each_view_and_their_means(tmp_path):
    scene = save_demo_scene(tmp_path, size=24, num_train=3, num_test=1)
    field = SparseVoxels.from_mask(
        torch.ones(8, 8, 8, dtype=torch.bool), SceneBox.cube(torch.zeros(3), 0.6), opacity=0.9
    )
    figures = evaluate_depth(field, scene.frames)
    names = [frame.name for frame in scene.frames]
    for kind in ("expected", "median", "first_surface"):
        each = [figures[f"depth/{kind}/mae/{name}"] for name in names]
        assert figures[f"depth/{kind}/mae"] == pytest.approx(sum(each) / len(each))
        assert 0 < figures[f"depth/{kind}/abs_rel"] < 0.3
    assert figures["depth/consistency"] > 0
    assert all(isinstance(value, float) for value in figures.values())


def test_input_that_cannot_be_fused_is_named(views):
    with pytest.raises(InputError, match="expected at least 2 views"):
        points_from_views(views[:1])
    with pytest.raises(InputError, match="`spacing` should be positive and finite"):
        points_from_views(views[:3], spacing=0.0)
    empty = [view.replace(depth=torch.zeros_like(view.depth)) for view in views[:3]]
    with pytest.raises(InputError, match="no point is consistent between views"):
        points_from_views(empty)
    with pytest.raises(InputError, match="none of the views has valid depth"):
        fuse_depths(empty)
    with pytest.raises(InputError, match="should have at least one view"):
        fuse_depths([])
    with pytest.raises(InputError, match="`voxel_size` should be positive"):
        fuse_depths(views[:2], voxel_size=0.1, truncation=0.01)
    with pytest.raises(InputError, match="voxels are too many"):
        fuse_depths(views[:2], voxel_size=1e-4)
    with pytest.raises(InputError, match="should have at least 2 views, got 1"):
        view_consistency(views[:1])
    with pytest.raises(InputError, match="DepthView: `camera` should be one, of the size of `depth`"):
        DepthView(views[0].camera, torch.zeros(4, 4))
