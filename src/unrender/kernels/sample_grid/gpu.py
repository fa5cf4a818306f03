"""Trilinear interpolation: one thread per channel of each point, so that loads are coalesced.

Gradients of the grid are accumulated in 64-bit fixed point, so that they do not depend on the order of threads.
"""

import functools
from types import SimpleNamespace
from typing import Any

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._fixed_point import from_sums, greatest_of
from unrender.kernels._warp import (
    Precision,
    count_log2,
    launch,
    per_precision,
    power_of_two,
    unit_exponent,
)


def forward(grid: Tensor, points: Tensor) -> Tensor:
    found = grid.new_empty(len(points), grid.shape[-1])
    look_up = _kernels(grid.dtype).look_up
    launch(look_up, tuple(found.shape), *rows_and_size(grid), points.contiguous(), found)
    return found


def backward(
    grid: Tensor, points: Tensor, cotangent: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Compute the gradients of grid and points that are `wanted`."""
    kernels, (rows, *size) = _kernels(grid.dtype), rows_and_size(grid)
    places, slopes = points.contiguous(), cotangent.contiguous()
    to_grid = to_points = None
    if wanted[0]:
        greatest, bits = greatest_of(slopes), count_log2(len(points))
        sums = torch.zeros(rows.shape, dtype=torch.int64, device=grid.device)
        launch(kernels.to_grid, tuple(slopes.shape), *size, places, slopes, greatest, bits, sums)
        to_grid = from_sums(sums, greatest, bits, grid.dtype).view(grid.shape)
    if wanted[1]:
        to_points = torch.empty_like(places)
        launch(kernels.to_points, len(points), rows, *size, places, slopes, to_points)
    return to_grid, to_points


def rows_and_size(grid: Tensor) -> tuple[Tensor, int, int, int]:
    depth, height, width, channels = grid.shape
    return grid.contiguous().view(-1, channels), depth, height, width


@functools.cache
def corner_functions(scalar: Any) -> SimpleNamespace:
    """Make the functions of one precision that tell which voxels are around a point."""
    vec3 = wp.types.vector(3, scalar)

    @wp.func
    def is_near(p: vec3, depth: int, height: int, width: int):
        """Tell whether a point is less than half a voxel outside of the grid."""
        low, high = scalar(-0.5), scalar(0.5)
        return (
            p[0] > low and p[1] > low and p[2] > low
            and p[0] < scalar(width) + high and p[1] < scalar(height) + high and p[2] < scalar(depth) + high
        )  # fmt: skip

    @wp.func
    def base_of(p: vec3):
        """Return the first of the eight voxels around a point."""
        half = scalar(0.5)
        return wp.vec3i(int(wp.floor(p[0] - half)), int(wp.floor(p[1] - half)), int(wp.floor(p[2] - half)))

    @wp.func
    def part_of(p: vec3, base: wp.vec3i):
        half = scalar(0.5)
        return vec3(
            p[0] - half - scalar(base[0]), p[1] - half - scalar(base[1]), p[2] - half - scalar(base[2])
        )

    @wp.func
    def row_of(base: wp.vec3i, corner: int, depth: int, height: int, width: int):
        """Return the row of one of the eight voxels, of which x changes fastest; −1 of one beyond the grid."""
        x, y, z = base[0] + (corner & 1), base[1] + ((corner >> 1) & 1), base[2] + (corner >> 2)
        if x < 0 or y < 0 or z < 0 or x >= width or y >= height or z >= depth:
            return -1
        return (z * height + y) * width + x

    @wp.func
    def share_of(part: vec3, corner: int):
        one = scalar(1.0)
        u = wp.where((corner & 1) == 1, part[0], one - part[0])
        v = wp.where(((corner >> 1) & 1) == 1, part[1], one - part[1])
        w = wp.where((corner >> 2) == 1, part[2], one - part[2])
        return u * v * w

    return SimpleNamespace(
        is_near=is_near, base_of=base_of, part_of=part_of, row_of=row_of, share_of=share_of
    )


@per_precision("sample_grid")
def _kernels(precision: Precision) -> SimpleNamespace:
    scalar, vec3 = precision.scalar, precision.vec3
    rows, points_array = wp.array2d(dtype=scalar), wp.array(dtype=vec3)
    corners = corner_functions(scalar)
    is_near, base_of, part_of = corners.is_near, corners.base_of, corners.part_of
    row_of, share_of = corners.row_of, corners.share_of

    @precision.kernel
    def look_up(grid: rows, depth: int, height: int, width: int, points: points_array, found: rows):
        i, channel = wp.tid()
        p, mixed = points[i], scalar(0.0)
        if is_near(p, depth, height, width):
            base = base_of(p)
            part = part_of(p, base)
            for corner in range(8):
                row = row_of(base, corner, depth, height, width)
                if row >= 0:
                    mixed += share_of(part, corner) * grid[row, channel]
        found[i, channel] = mixed

    @precision.kernel
    def to_grid(
        depth: int,
        height: int,
        width: int,
        points: points_array,
        slopes: rows,
        greatest: wp.array(dtype=wp.int64),
        bits: int,
        sums: wp.array2d(dtype=wp.int64),
    ):
        i, channel = wp.tid()
        p = points[i]
        if is_near(p, depth, height, width):
            base = base_of(p)
            part = part_of(p, base)
            units = scalar(wp.float64(slopes[i, channel]) * power_of_two(-unit_exponent(greatest[0], bits)))
            for corner in range(8):
                row = row_of(base, corner, depth, height, width)
                if row >= 0:
                    wp.atomic_add(sums, row, channel, wp.int64(share_of(part, corner) * units))

    @precision.kernel
    def to_points(
        grid: rows,
        depth: int,
        height: int,
        width: int,
        points: points_array,
        slopes: rows,
        found: points_array,
    ):
        i = wp.tid()
        p, total, one = points[i], vec3(), scalar(1.0)
        if is_near(p, depth, height, width):
            base = base_of(p)
            part = part_of(p, base)
            for corner in range(8):
                row = row_of(base, corner, depth, height, width)
                if row >= 0:
                    value = scalar(0.0)
                    for channel in range(grid.shape[1]):
                        value += slopes[i, channel] * grid[row, channel]
                    x, y, z = (corner & 1) == 1, ((corner >> 1) & 1) == 1, (corner >> 2) == 1
                    u = wp.where(x, part[0], one - part[0])
                    v = wp.where(y, part[1], one - part[1])
                    w = wp.where(z, part[2], one - part[2])
                    total += vec3(
                        wp.where(x, value, -value) * v * w,
                        wp.where(y, value, -value) * u * w,
                        wp.where(z, value, -value) * u * v,
                    )
        found[i] = total

    return SimpleNamespace(look_up=look_up, to_grid=to_grid, to_points=to_points)
