"""Depth, meshes and quick looks of a field that was trained, compared with the ground truth."""

import pytest
import torch

from unrender import (
    DepthView,
    closest_on_mesh,
    demo_object,
    evaluate_depth,
    extract_surface,
    fuse_depths,
    measure_depth,
    points_from_views,
    quick_look,
)


@pytest.fixture(scope="module")
def views(trained):
    """Of the median depth, from where the photos stood."""
    depths = [measure_depth(trained.field, frame.camera) for frame in trained.scene.split("train")]
    return [DepthView(depth.camera, torch.where(depth.valid, depth.median_z, 0)) for depth in depths]


def distances(points):
    mesh = demo_object()
    return closest_on_mesh(points, mesh.vertices.float(), mesh.faces).squared_distances.sqrt()


def test_depth_is_near_the_truth(trained):
    figures = evaluate_depth(trained.field, trained.scene.split("test"))
    for kind in ("expected", "median", "first_surface"):
        assert figures[f"depth/{kind}/abs_rel"] < 0.03
        assert figures[f"depth/{kind}/valid_fraction"] > 0.9


def test_sure_pixels_are_as_often_right_as_they_say(trained):
    sure, right = [], []
    for frame in trained.scene.split("test"):
        found, view = measure_depth(trained.field, frame.camera), frame.load()
        there = found.valid & (view.depth > 0) & (view.alpha == 1)
        sure.append(found.confidence[there])
        right.append(((found.median_z - view.depth).abs() <= 0.01 * view.depth)[there].float())
    sure, right = torch.cat(sure), torch.cat(right)
    bins = [
        (sure >= low) & (sure < high)
        for low, high in ((0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.1))
    ]
    filled = [chosen for chosen in bins if int(chosen.sum()) > 50]
    assert len(filled) >= 2
    for chosen in filled:
        assert float(right[chosen].mean()) >= float(sure[chosen].mean()) - 0.15
    assert float(right[filled[-1]].mean()) > float(right[filled[0]].mean()) + 0.1


def test_a_quick_look_is_near_the_measurement(trained):
    camera = trained.scene.split("test")[0].camera
    seen, found = quick_look(trained.field, camera), measure_depth(trained.field, camera)
    both = (seen.opacity > 0.5) & found.valid
    assert float(((seen.opacity > 0.5) != found.valid).float().mean()) < 0.02
    assert float((seen.distance - found.expected_distance).abs()[both].mean()) < 0.02
    picture = trained.field.render(camera, torch.ones(3)).color
    assert float((quick_look(trained.field, camera, torch.ones(3)).color - picture).abs().mean()) < 0.02


def test_regular_samples_are_as_good_if_they_are_many(trained):
    camera = trained.scene.split("test")[1].camera
    own = measure_depth(trained.field, camera)
    even = measure_depth(trained.field, camera, near=1.5, far=5.0, num_samples=600)
    both = own.valid & even.valid
    assert float((own.valid != even.valid).float().mean()) < 0.01
    assert float((own.median_distance - even.median_distance).abs()[both].mean()) < 0.01


def test_views_make_points_and_a_mesh_near_the_surface(trained, views):
    cloud = points_from_views(views, tolerance=0.03)
    assert float(distances(cloud.points).mean()) < 0.03
    assert float(distances(fuse_depths(views, voxel_size=0.04).vertices).mean()) < 0.04


@pytest.mark.parametrize("voxel_size", [None, 0.03])
def test_its_density_makes_a_mesh_near_the_surface(trained, voxel_size):
    mesh = extract_surface(trained.field, voxel_size=voxel_size)
    error = distances(mesh.vertices)
    assert float(error.mean()) < 0.08  # it has an inner side too
    assert float(mesh.vertex_colors.std()) > 0.05
