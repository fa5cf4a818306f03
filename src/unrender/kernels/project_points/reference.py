"""Reference implementation of the projection of points."""

import torch
from torch import Tensor

NEAR = 1e-4
"""Depth of the near plane, as a fraction of that of the farthest point."""


def forward(
    points: Tensor, camera_from_world: Tensor, focal: Tensor, center: Tensor, perspective: bool
) -> Tensor:
    """Return (x·w, y·w, w, z): (X, Y, Z) = R p + t, x·w = f_x X + c_x w, likewise y; w is Z, or 1 if orthographic.

    Written out per coordinate: a matrix product starts all threads for three numbers, and its last bits depend on how
    many threads there are.
    """
    x, y, z, origin = camera_from_world[..., None, :3, :].unbind(-1)
    in_camera = points[..., :1] * x + points[..., 1:2] * y + points[..., 2:] * z + origin
    depth = in_camera[..., 2:]
    w = depth if perspective else torch.ones_like(depth)
    return torch.cat([in_camera[..., :2] * focal[..., None, :] + w * center[..., None, :], w, depth], -1)


def near_plane(projected: Tensor) -> Tensor:
    """Return NEAR times the depth of the farthest of projected points [..., points, 4], but more than 0."""
    return (NEAR * projected[..., 3].amax()).clamp(min=torch.finfo(projected.dtype).tiny)
