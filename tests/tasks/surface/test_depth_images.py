"""Depth images for surfaces: how many fit into a budget, and which pixels other views confirm."""

import pytest
import torch

from unrender import Camera, DepthView, InputError, SceneBox, SparseVoxels
from unrender.tasks.surface import depth_images
from unrender.tasks.surface.depth_images import (
    MIN_SIZE,
    MIN_VIEWS,
    SIZE,
    DepthPlan,
    confirmed_depths,
    plan_views,
    render_depth_images,
    within_bounds,
)
from unrender.tasks.surface.photo_views import PhotoView


def ring(count, size=32):
    angles = torch.arange(count) * (torch.pi / 2 / count)
    return [
        Camera.look_at((4 * float(a.sin()), 0.0, -4 * float(a.cos())), height=size, width=size)
        for a in angles
    ]


def ball(contracted=True):
    """A ball of voxels in the box, and in contracted space a wall far away behind it."""
    axis = torch.linspace(-2, 2, 32) / (1 if contracted else 2)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    mask = (x**2 + y**2 + z**2 < 0.6**2) | (contracted & (torch.stack([x, y, z]).abs().amax(0) > 1.8))
    return SparseVoxels.from_mask(
        mask, SceneBox.cube(torch.zeros(3), 1.0, contracted=contracted), opacity=0.99
    )


def photos(count):
    return [
        PhotoView("photo", camera, torch.zeros(camera.height, camera.width, 3, dtype=torch.uint8))
        for camera in ring(count)
    ]


@pytest.mark.parametrize(
    ("fraction", "count", "size"),
    [
        (0.01, 60, SIZE),
        (1 / 40, 40, SIZE),
        (1 / MIN_VIEWS, MIN_VIEWS, SIZE),
        (4 / MIN_VIEWS, MIN_VIEWS, SIZE // 2),
        (1.0, int((SIZE / MIN_SIZE) ** 2), MIN_SIZE),
        (100.0, 2, MIN_SIZE),
    ],
)
def test_a_short_budget_gives_fewer_then_smaller_images(fraction, count, size):
    plan = plan_views(DepthPlan(tuple(range(60)), SIZE), 60, fraction)
    assert (len(plan.indices), plan.size) == (count, size)
    assert plan.indices[0] == 0
    assert len(set(plan.indices)) == count


def test_images_of_a_budget_that_is_spent():
    images = list(render_depth_images(ball(), photos(9), 8, seconds=0.0))
    assert [image.number for image in images] == [0, 1]
    assert [image.photo for image in images] == [0, 4]
    assert len(list(render_depth_images(ball(), photos(9), 8, seconds=None))) == 8


def test_time_that_is_left_is_used_for_more_images(monkeypatch):
    monkeypatch.setattr(depth_images, "plan_views", lambda plan, *_: DepthPlan(plan.indices[::4], plan.size))
    images = list(render_depth_images(ball(), photos(8), 8, seconds=1e9))
    assert [image.number for image in images] == list(range(8))
    assert [image.photo for image in images[:2]] == [0, 4]
    assert {image.photo for image in images} == set(range(8))


def test_of_an_unbounded_field_only_the_box_is_rendered():
    field = ball()
    whole, inside = (next(render_depth_images(f, photos(1), 1, None)) for f in (field, within_bounds(field)))
    assert bool(whole.view.depth.isfinite().all())
    assert float(inside.view.depth[16, 16]) == pytest.approx(float(whole.view.depth[16, 16]), abs=1e-4)
    assert bool(inside.view.depth[0].isinf().all())
    assert within_bounds(ball(contracted=False)).scene_box.contracted is False
    with pytest.raises(InputError, match="nothing is in its scene box"):
        within_bounds(field.crop(torch.full((3,), 2.0), torch.full((3,), 9.0)))


def test_floaters_and_depth_discontinuities_are_not_confirmed():
    views = [image.view for image in render_depth_images(ball(False), photos(6), 6, None)]
    depth = views[0].depth.clone()
    depth[14:18, 14:18] -= 2
    confirmed = confirmed_depths([DepthView(views[0].camera, depth), *views[1:]])
    assert bool((confirmed[0].depth[14:18, 14:18] == 0).all())
    assert bool((confirmed[0].depth.isinf() == depth.isinf()).all())
    kept = (confirmed[2].depth > 0) & confirmed[2].depth.isfinite()
    shown = views[2].depth.isfinite() & (views[2].depth > 0)
    assert 0.5 < float(kept.sum() / shown.sum()) < 1
    assert depth_images.MIN_CONSISTENT_VIEWS == 2
