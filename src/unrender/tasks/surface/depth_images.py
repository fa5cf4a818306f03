"""Depth images of a field, from which its surface is extracted: their number and size, and which pixels to trust."""

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence

import torch

from unrender.data.frames import evenly_spaced
from unrender.errors import InputError
from unrender.fields.protocol import Croppable, RenderedField
from unrender.fields.render_field import device_of
from unrender.io.depth import points_from_depth
from unrender.render.depth import DepthView
from unrender.tasks.depth.depth_views import median_view
from unrender.tasks.depth.measure_depth import measure_depth
from unrender.tasks.depth.view_consistency import consistent_pixels, nearest_cameras
from unrender.tasks.surface.photo_views import PhotoView

SIZE, MIN_SIZE = 400, 160
"""Longer side of depth images in pixels: at most, and at least if the time is short."""
MIN_VIEWS = 24
"""Views below which the images get smaller first if the time is short."""
WARM_UP_SIZE = 16
"""Size of an image that is not timed: kernels may be compiled for it."""
RAYS_PER_CHUNK = 8192
"""Rays at once: those of an unbounded scene have hundreds of samples each."""
EMPTY_OPACITY = 0.1
"""Opacity below which a pixel shows no surface."""
TOLERANCE, NUM_NEIGHBORS = 0.02, 8
"""Relative difference at which two views agree on the depth of a point, and the nearest views that are compared."""
MIN_CONSISTENT_VIEWS = 2
"""Other views that have to agree."""


@dataclasses.dataclass(frozen=True)
class DepthPlan:
    """Which views to render, and how large."""

    indices: tuple[int, ...]
    size: int


@dataclasses.dataclass(frozen=True)
class DepthImage:
    """A depth image of the field at the camera of a photo."""

    number: int
    plan: DepthPlan
    view: DepthView

    @property
    def photo(self) -> int:
        """Index of the photo."""
        return self.plan.indices[self.number]


def within_bounds(field: RenderedField) -> RenderedField:
    """Return the part of an unbounded field in its scene box, which is rendered faster; any other field as it is."""
    box = field.scene_box
    if not box.contracted or not isinstance(field, Croppable):
        return field
    cropped = field.crop(*box.bounds)
    if cropped is None:
        raise InputError(
            "fit_surface: the field has no surface: nothing is in its scene box; train it longer"
        )
    return cropped


def render_depth_images(
    field: RenderedField, photos: Sequence[PhotoView], num_views: int, seconds: float | None
) -> Iterator[DepthImage]:
    """Render the median depth of a field at evenly spaced cameras.

    A budget in `seconds` limits their number and size, by the time that the first one takes; if others are faster,
    more of them are rendered in the time that is left.
    """
    wanted = evenly_spaced(range(len(photos)), num_views)
    plan = DepthPlan(tuple(wanted), SIZE)
    if seconds is not None:
        render_depth(field, photos[plan.indices[0]], WARM_UP_SIZE)
    start = time.perf_counter()
    view = render_depth(field, photos[plan.indices[0]], plan.size)
    if seconds is not None:
        plan = plan_views(plan, len(photos), (time.perf_counter() - start) / max(seconds, 1e-9))
    yield DepthImage(0, plan, view)
    for number in range(1, len(plan.indices)):
        yield DepthImage(number, plan, render_depth(field, photos[plan.indices[number]], plan.size))
    others = [index for index in wanted if index not in plan.indices]
    for index in (others[i] for i in torch.randperm(len(others), generator=torch.Generator().manual_seed(0))):
        is_late = seconds is None or time.perf_counter() - start > seconds
        if is_late or len(plan.indices) == len(wanted):
            break
        plan = DepthPlan((*plan.indices, index), plan.size)
        yield DepthImage(len(plan.indices) - 1, plan, render_depth(field, photos[index], plan.size))


def plan_views(plan: DepthPlan, num_photos: int, fraction: float) -> DepthPlan:
    """Return the views and their size for a budget of which the first view took a fraction: fewer, then smaller."""
    wanted = len(plan.indices)
    if wanted * fraction <= 1:
        return plan
    least = min(wanted, MIN_VIEWS)
    size = round(plan.size * math.sqrt(min(1.0, 1 / (least * fraction))))
    size = max(MIN_SIZE, size)
    count = max(2, min(wanted, int((plan.size / size) ** 2 / fraction)))
    return DepthPlan(tuple(evenly_spaced(range(num_photos), count)), size)


def render_depth(field: RenderedField, photo: PhotoView, size: int) -> DepthView:
    """Render the median depth at the camera of a photo: infinite where it shows no surface, 0 where that is unknown."""
    camera = photo.camera
    if max(camera.height, camera.width) > size:
        camera = camera.resize_longest(size)
    measured = measure_depth(field, camera.to(device_of(field, camera)), rays_per_chunk=RAYS_PER_CHUNK)
    view = median_view(measured)
    return view.replace(depth=torch.where(measured.opacity < EMPTY_OPACITY, torch.inf, view.depth))


def confirmed_depths(views: Sequence[DepthView]) -> list[DepthView]:
    """Remove the depth of pixels at depth discontinuities, and of those that other views do not confirm.

    Unbounded fields have floaters in front of cameras, and haze where few photos look. Infinite depth is kept.
    """
    sharp = [_without_discontinuities(view) for view in views]
    neighbors = nearest_cameras([view.camera for view in views], NUM_NEIGHBORS)
    needed = min(MIN_CONSISTENT_VIEWS, len(views) - 1)
    confirmed = []
    for view, others in zip(sharp, neighbors, strict=True):
        kept = consistent_pixels(view, [sharp[i] for i in others], TOLERANCE, needed)
        confirmed.append(view.replace(depth=torch.where(kept | view.depth.isinf(), view.depth, 0)))
    return confirmed


def _without_discontinuities(view: DepthView) -> DepthView:
    points = points_from_depth(view.depth, view.camera.focal, view.camera.center)
    return view.replace(depth=torch.where(points.valid | view.depth.isinf(), view.depth, 0))
