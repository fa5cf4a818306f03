"""Consistency of depth between views, by reprojection."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.camera import Camera
from unrender.geometry.rays import pixel_centers
from unrender.render.depth import DepthView


class SampledDepth(NamedTuple):
    """The depth of points in a view, and the depth that the view has at their pixels."""

    expected: Float[Tensor, " points"]
    """z of the points."""
    measured: Float[Tensor, " points"]
    """z of the view at the nearest pixel; 0 outside the image, behind the camera, and for missing depth."""
    pixel: Int[Tensor, " points"]
    """Flat index of that pixel; 0 outside the image."""


def unproject_view(view: DepthView) -> tuple[Float[Tensor, "points 3"], Bool[Tensor, "height width"]]:
    """Unproject the pixels of a view that have depth; return the world points, and the mask of these pixels."""
    valid = view.depth > 0
    pixels = torch.cat([pixel_centers(view.camera), view.depth[..., None]], -1)[valid]
    points = view.camera.unproject(pixels)
    finite = points.isfinite().all(-1)
    return points[finite], valid.masked_scatter(valid, finite)


def sample_depth(view: DepthView, points: Float[Tensor, "points 3"]) -> SampledDepth:
    """Project points to a view, and sample its depth there."""
    camera = view.camera
    x, y, z = camera.project(points).unbind(-1)
    inside = (z > 0) & (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
    column, row = (torch.where(inside, t, 0).long() for t in (x, y))
    pixel = row * camera.width + column
    return SampledDepth(z, torch.where(inside, view.depth.flatten()[pixel], 0), pixel)


def nearest_cameras(cameras: Sequence[Camera], count: int) -> list[list[int]]:
    """List the nearest other cameras of each camera, nearest first.

    The metric is the distance between positions, divided by its median, plus the angle between optical axes in radians.
    """
    positions = torch.stack([camera.position for camera in cameras])
    forward = torch.stack([camera.camera_from_world[2, :3] for camera in cameras])
    distances = torch.cdist(positions[None], positions[None], compute_mode="donot_use_mm_for_euclid_dist")[0]
    median = distances.median().clamp(min=1e-12)
    angles = (forward[:, None] * forward).sum(-1).clamp(-1, 1).acos()
    order = (distances / median + angles).fill_diagonal_(-1).argsort(dim=1, stable=True)
    return [[int(i) for i in row[1 : count + 1]] for row in order]


def consistent_pixels(
    view: DepthView, others: Sequence[DepthView], tolerance: float, min_consistent_views: int
) -> Bool[Tensor, "height width"]:
    """Return the pixels whose depth other views confirm.

    A pixel is consistent with another view if the depth of that view at its point differs by at most `tolerance`,
    relatively; it is inconsistent if that view measures a surface, or with infinite depth nothing, behind the point. At
    least `min_consistent_views` views have to be consistent, and more than are inconsistent.
    """
    points, valid = unproject_view(view)
    consistent, inconsistent = points.new_zeros(2, len(points)).unbind()
    for other in others:
        sampled = sample_depth(other, points)
        behind = sampled.measured - sampled.expected
        margin = tolerance * sampled.measured.clamp(max=sampled.expected / (1 - tolerance))
        consistent += (sampled.measured > 0) & (behind.abs() <= margin)
        inconsistent += (sampled.measured > 0) & (behind > margin)
    kept = (consistent >= min_consistent_views) & (consistent > inconsistent)
    return torch.zeros_like(valid).masked_scatter(valid, kept)


def view_consistency(views: Sequence[DepthView], *, num_neighbors: int = 2) -> dict[str, float]:
    """Measure how well the depth of each view agrees with that of its nearest views, after reprojection.

    Use it to judge depth without ground truth. consistency is the median of |z − z'| / z' over the pixels of all pairs
    of views, where z is the depth of a reprojected point and z' the depth of the other view at its pixel.
    consistency_fraction is the fraction of the reprojected points inside the other image that have depth there. nan if
    there are none.
    """
    if len(views) < 2:
        raise InputError(f"view_consistency: `views` should have at least 2 views, got {len(views)}")
    differences, within = [], 0
    for view, others in zip(views, nearest_cameras([v.camera for v in views], num_neighbors), strict=True):
        points, _ = unproject_view(view)
        for other in others:
            sampled = sample_depth(views[other], points)
            is_measured = sampled.measured > 0
            differences.append(((sampled.expected - sampled.measured).abs() / sampled.measured)[is_measured])
            within += int(_is_in_image(views[other].camera, points).sum())
    found = torch.cat(differences)
    return {
        "consistency": float(found.median()) if len(found) else float("nan"),
        "consistency_fraction": len(found) / max(within, 1),
    }


def _is_in_image(camera: Camera, points: Tensor) -> Tensor:
    x, y, z = camera.project(points).unbind(-1)
    return (z > 0) & (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
