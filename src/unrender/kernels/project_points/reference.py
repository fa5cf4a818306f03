"""Reference implementation of the projection of points."""

import torch
from torch import Tensor


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
