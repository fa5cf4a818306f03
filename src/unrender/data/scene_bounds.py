"""Bounding boxes of scenes, from points or cameras."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import intersect_axes

MAX_HALF_FOV_TANGENT = math.tan(math.radians(60))
"""Limit of 120 degrees: wider views say little about the size of the object at their center."""
MIN_AXIS_SPREAD = 0.02
"""Smallest eigenvalue of the mean of I − dd ᵀ, over converging axes d: about 11 degrees apart."""
OUTLIERS = 0.01
MARGIN = 0.1


def bounds_of_points(points: Float[Tensor, "points 3"]) -> Float[Tensor, "2 3"]:
    """Compute a box around 98 % of the points along each axis, with a margin of a tenth."""
    quantiles = torch.tensor([OUTLIERS, 1 - OUTLIERS], dtype=points.dtype)
    rows = points[:: 1 + len(points) // 1_000_000]
    low, high = torch.quantile(rows, quantiles, dim=0)
    margin = MARGIN * (high - low) + 1e-6 * (high - low).amax()
    return torch.stack([low - margin, high + margin])


def bounds_of_cameras(cameras: Sequence[Camera]) -> Float[Tensor, "2 3"]:
    """Estimate bounds from camera poses.

    If the optical axes converge, the bounds are a cube around the point closest to them, as large as the widest view
    there. Otherwise they contain all cameras, and their axes up to the cameras' largest extent. Those of 360° cameras
    reach that far in all directions.
    """
    positions = torch.stack([camera.position for camera in cameras]).double()
    axes = torch.stack([camera.camera_from_world[2, :3] for camera in cameras]).double()
    if all(camera.projection == "equirectangular" for camera in cameras):
        low, high = positions.aminmax(dim=0)
        reach = float((high - low).norm()) or 1.0
        return torch.stack([low - reach, high + reach]).float()
    half_tangents = torch.stack([_half_fov_tangent(camera) for camera in cameras]).double()
    center = convergence_point(positions, axes)
    if center is not None:
        depths = ((center - positions) * axes).sum(-1)
        half = float((depths * half_tangents).amax())
        return torch.stack([center - half, center + half]).float()
    low, high = positions.aminmax(dim=0)
    reach = float((high - low).norm()) or 1.0
    ends = torch.cat([positions, positions + reach * axes])
    low, high = ends.aminmax(dim=0)
    return torch.stack([low - reach / 2, high + reach / 2]).float()


def convergence_point(positions: Tensor, axes: Tensor) -> Tensor | None:
    """Return the point closest to all optical axes, see `intersect_axes`.

    None if the axes are parallel, or more than a tenth of the cameras face away from the point.
    """
    center = intersect_axes(positions, axes, MIN_AXIS_SPREAD)
    if center is None:
        return None
    in_front = ((center - positions) * axes).sum(-1) > 0
    return center if float(in_front.double().mean()) > 0.9 else None


def _half_fov_tangent(camera: Camera) -> Tensor:
    """Return the tangent of half the wider field of view."""
    size = camera.focal.new_tensor([camera.width, camera.height])
    return (size / 2 / camera.focal).amax().clamp(max=MAX_HALF_FOV_TANGENT)
