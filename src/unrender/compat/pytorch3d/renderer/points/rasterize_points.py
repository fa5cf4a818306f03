"""Rasterization of points with lengths in NDC; kernels of unrender use pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.mesh.rasterize_meshes import ImageSize, height_width
from unrender.compat.pytorch3d.structures.pointclouds import Pointclouds
from unrender.compat.pytorch3d.structures.utils import stack
from unrender.errors import InputError
from unrender.kernels.rasterize_points import rasterize_discs

Radius = float | Sequence[float] | Tensor


def rasterize_points(
    pointclouds: Pointclouds,
    image_size: ImageSize = 256,
    radius: Radius = 0.01,
    points_per_pixel: int = 8,
    bin_size: int | None = None,
    max_points_per_bin: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the nearest points at each pixel, of clouds with x and y in NDC, and depth.

    Return indices into `points_packed`, depths, and squared distances in NDC² [N, H, W, K], front to back; empty slots
    hold −1. Bins grow as needed, so no point is dropped; `bin_size` and `max_points_per_bin` have no effect.
    """
    height, width = height_width(image_size)
    scale, parts, start = min(height, width) / 2, [], 0
    radii = packed_radii(radius, pointclouds).split(pointclouds.num_points_per_cloud().tolist())
    for points, radius_of in zip(pointclouds.points_list(), radii, strict=True):
        x, y, z = points.unbind(-1)
        pixels = torch.stack([width / 2 - scale * x, height / 2 - scale * y, z], -1)
        found = rasterize_discs(
            pixels, scale * radius_of, height=height, width=width, layers=points_per_pixel
        )
        empty = found.point_ids < 0
        parts.append(
            (
                torch.where(empty, -1, found.point_ids.long() + start),
                found.depth.masked_fill(empty, -1),
                (found.squared_distance / scale**2).masked_fill(empty, -1),
            )
        )
        start += len(points)
    if not parts:
        raise InputError("rasterize_points: there are no clouds")
    ids, depths, squared = (stack(column) for column in zip(*parts, strict=True))
    return ids, depths, squared


def packed_radii(radius: Radius, pointclouds: Pointclouds) -> Tensor:
    """Return the radius of each row of `points_packed`: from one number, packed numbers, or padded ones [N, P]."""
    points, counts = pointclouds.points_packed(), pointclouds.num_points_per_cloud().tolist()
    if not isinstance(radius, float | int | list | tuple | Tensor):
        raise InputError(f"radius must be a float, list, tuple or tensor, got {type(radius).__name__}")
    given = torch.as_tensor(radius, dtype=points.dtype, device=points.device)
    if given.numel() == 1:
        return given.reshape(1).expand(len(points))
    longest = max(counts, default=0)
    if given.shape == (len(counts), longest):
        return torch.cat([row[:n] for row, n in zip(given, counts, strict=True)])
    if given.shape != (len(points),):
        raise InputError(
            f"radius must be of shape [{len(points)}] or [{len(counts)}, {longest}], got {list(given.shape)}"
        )
    return given


rasterize_points_python = rasterize_points
_format_radius = packed_radii

__getattr__ = refuse_unknown(__name__)
