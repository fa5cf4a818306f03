"""The box in which a scene lies."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.geometry.camera import Camera

WIDEST = math.tan(math.radians(60))
"""Views beyond 120 degrees tell little about how large the thing in their middle is."""
CONVERGING = 0.02
"""The least eigenvalue of the mean of I − dd ᵀ, for axes d that meet somewhere: about 11 degrees apart."""
OUTLIERS = 0.01
MARGIN = 0.1


def bounds_of_points(points: Float[Tensor, "points 3"]) -> Float[Tensor, "2 3"]:
    """Box in 98 % of the points along each axis, with a margin of a tenth."""
    quantiles = torch.tensor([OUTLIERS, 1 - OUTLIERS], dtype=points.dtype)
    rows = points[:: 1 + len(points) // 1_000_000]
    low, high = torch.quantile(rows, quantiles, dim=0)
    margin = MARGIN * (high - low) + 1e-6 * (high - low).amax()
    return torch.stack([low - margin, high + margin])


def bounds_of_cameras(cameras: Sequence[Camera]) -> Float[Tensor, "2 3"]:
    """Guess a cube from where the cameras look.

    If they stand around a middle, the point nearest to all axes, the cube is as large as what the widest view sees
    there. Otherwise it holds all the cameras, and what they see as far away as they are apart.
    """
    positions = torch.stack([camera.position for camera in cameras]).double()
    axes = torch.stack([camera.camera_from_world[2, :3] for camera in cameras]).double()
    slopes = torch.stack([_slope(camera) for camera in cameras]).double()
    middle = meeting_point(positions, axes)
    if middle is not None:
        depths = ((middle - positions) * axes).sum(-1)
        half = float((depths * slopes).amax())
        return torch.stack([middle - half, middle + half]).float()
    low, high = positions.aminmax(dim=0)
    reach = float((high - low).norm()) or 1.0
    ends = torch.cat([positions, positions + reach * axes])
    low, high = ends.aminmax(dim=0)
    return torch.stack([low - reach / 2, high + reach / 2]).float()


def meeting_point(positions: Tensor, axes: Tensor) -> Tensor | None:
    """Return the point nearest to all cameras' axes, by least squares; None if they are parallel or look away."""
    across = torch.eye(3, dtype=axes.dtype) - axes[:, :, None] * axes[:, None, :]
    if float(torch.linalg.eigvalsh(across.mean(0))[0]) < CONVERGING:
        return None
    middle = torch.linalg.solve(across.sum(0), (across @ positions[:, :, None]).sum(0))[:, 0]
    ahead = ((middle - positions) * axes).sum(-1) > 0
    return middle if float(ahead.double().mean()) > 0.9 else None


def _slope(camera: Camera) -> Tensor:
    """Return the tangent of half the wider field of view."""
    size = camera.focal.new_tensor([camera.width, camera.height])
    return (size / 2 / camera.focal).amax().clamp(max=WIDEST)
