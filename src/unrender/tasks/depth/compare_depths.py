"""Depths of several views against each other: what one sees, the others should see at the same place."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.camera import Camera
from unrender.geometry.rays import pixel_centers
from unrender.render.depth import DepthView


class Seen(NamedTuple):
    """How far away points are for a camera, and what it sees there."""

    expected: Float[Tensor, " points"]
    """z of the point itself."""
    measured: Float[Tensor, " points"]
    """z of the depth at the nearest pixel; 0 outside of the picture, behind the camera and where it is unknown."""
    pixel: Int[Tensor, " points"]
    """Number of that pixel, row by row; 0 outside."""


def points_of(view: DepthView) -> tuple[Float[Tensor, "points 3"], Bool[Tensor, "height width"]]:
    """Return where the pixels of a view lie in the world, and which those are."""
    there = view.depth > 0
    pixels = torch.cat([pixel_centers(view.camera), view.depth[..., None]], -1)[there]
    points = view.camera.unproject(pixels)
    known = points.isfinite().all(-1)
    return points[known], there.masked_scatter(there, known)


def look_at_points(view: DepthView, points: Float[Tensor, "points 3"]) -> Seen:
    """Look from one view at points."""
    camera = view.camera
    x, y, z = camera.project(points).unbind(-1)
    inside = (z > 0) & (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
    column, row = (torch.where(inside, t, 0).long() for t in (x, y))
    pixel = row * camera.width + column
    return Seen(z, torch.where(inside, view.depth.flatten()[pixel], 0), pixel)


def neighbors_of(cameras: Sequence[Camera], count: int) -> list[list[int]]:
    """List, for each camera, the others that look from nearby into the same direction, nearest first.

    Near is what has a small sum of the distance between them, in units of the median distance of all, and the angle
    between their axes, in radians.
    """
    positions = torch.stack([camera.position for camera in cameras])
    forward = torch.stack([camera.camera_from_world[2, :3] for camera in cameras])
    apart = torch.cdist(positions[None], positions[None], compute_mode="donot_use_mm_for_euclid_dist")[0]
    unit = apart.median().clamp(min=1e-12)
    angles = (forward[:, None] * forward).sum(-1).clamp(-1, 1).acos()
    order = (apart / unit + angles).fill_diagonal_(-1).argsort(dim=1, stable=True)
    return [[int(i) for i in row[1 : count + 1]] for row in order]


def view_consistency(views: Sequence[DepthView], *, num_neighbors: int = 2) -> dict[str, float]:
    """Compare the depth of each view with those of its neighbours, after reprojection.

    consistency = median |z − z'| / z' over pixels of all pairs, where z is the depth that a point seen by one view has
    for the other, and z' the depth which that one sees there; consistency_share is the share of the points in the
    picture of the other for which it sees any. nan of none.
    """
    if len(views) < 2:
        raise InputError(f"view_consistency: takes at least 2 views, got {len(views)}")
    differences, within = [], 0
    for view, others in zip(views, neighbors_of([v.camera for v in views], num_neighbors), strict=True):
        points, _ = points_of(view)
        for other in others:
            seen = look_at_points(views[other], points)
            known = seen.measured > 0
            differences.append(((seen.expected - seen.measured).abs() / seen.measured)[known])
            within += int(_in_picture(views[other].camera, points).sum())
    found = torch.cat(differences)
    return {
        "consistency": float(found.median()) if len(found) else float("nan"),
        "consistency_share": len(found) / max(within, 1),
    }


def _in_picture(camera: Camera, points: Tensor) -> Tensor:
    x, y, z = camera.project(points).unbind(-1)
    return (z > 0) & (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
