"""Trilinear interpolation: one thread per channel of each point, so that loads are coalesced.

Gradients of the grid are accumulated in 64-bit fixed point, so that they do not depend on the order of threads.
"""

import functools
from types import SimpleNamespace
from typing import Any

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._fixed_point import from_sums, max_magnitude
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
    sample = _kernels(grid.dtype).sample
    launch(sample, tuple(found.shape), *rows_and_size(grid), points.contiguous(), found)
    return found


def backward(
    grid: Tensor, points: Tensor, grad_output: Tensor, needs_grad: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Compute the gradients of grid and points for which `needs_grad` is true."""
    kernels, (rows, *size) = _kernels(grid.dtype), rows_and_size(grid)
    positions, grad_output = points.contiguous(), grad_output.contiguous()
    grad_grid = grad_points = None
    if needs_grad[0]:
        max_term, bits = max_magnitude(grad_output), count_log2(len(points))
        sums = torch.zeros(rows.shape, dtype=torch.int64, device=grid.device)
        launch(
            kernels.grad_grid, tuple(grad_output.shape), *size, positions, grad_output, max_term, bits, sums
        )
        grad_grid = from_sums(sums, max_term, bits, grid.dtype).view(grid.shape)
    if needs_grad[1]:
        grad_points = torch.empty_like(positions)
        launch(kernels.grad_points, len(points), rows, *size, positions, grad_output, grad_points)
    return grad_grid, grad_points


def rows_and_size(grid: Tensor) -> tuple[Tensor, int, int, int]:
    depth, height, width, channels = grid.shape
    return grid.contiguous().view(-1, channels), depth, height, width


@functools.cache
def corner_functions(scalar: Any) -> SimpleNamespace:
    """Make the functions of one precision that find the voxels around a point."""
    vec3 = wp.types.vector(3, scalar)

    @wp.func
    def is_inside(p: vec3, depth: int, height: int, width: int):
        """Return whether a point is inside the grid, or less than half a voxel outside."""
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
    def fraction_of(p: vec3, base: wp.vec3i):
        half = scalar(0.5)
        return vec3(
            p[0] - half - scalar(base[0]), p[1] - half - scalar(base[1]), p[2] - half - scalar(base[2])
        )

    @wp.func
    def row_of(base: wp.vec3i, corner: int, depth: int, height: int, width: int):
        """Return the row of one of the eight voxels, x changing fastest; −1 outside the grid."""
        x, y, z = base[0] + (corner & 1), base[1] + ((corner >> 1) & 1), base[2] + (corner >> 2)
        if x < 0 or y < 0 or z < 0 or x >= width or y >= height or z >= depth:
            return -1
        return (z * height + y) * width + x

    @wp.func
    def corner_weight(fraction: vec3, corner: int):
        one = scalar(1.0)
        u = wp.where((corner & 1) == 1, fraction[0], one - fraction[0])
        v = wp.where(((corner >> 1) & 1) == 1, fraction[1], one - fraction[1])
        w = wp.where((corner >> 2) == 1, fraction[2], one - fraction[2])
        return u * v * w

    return SimpleNamespace(
        is_inside=is_inside,
        base_of=base_of,
        fraction_of=fraction_of,
        row_of=row_of,
        corner_weight=corner_weight,
    )


@per_precision("sample_grid")
def _kernels(precision: Precision) -> SimpleNamespace:
    scalar, vec3 = precision.scalar, precision.vec3
    rows, points_array = wp.array2d(dtype=scalar), wp.array(dtype=vec3)
    corners = corner_functions(scalar)
    is_inside, base_of, fraction_of = corners.is_inside, corners.base_of, corners.fraction_of
    row_of, corner_weight = corners.row_of, corners.corner_weight

    @precision.kernel
    def sample(grid: rows, depth: int, height: int, width: int, points: points_array, found: rows):
        i, channel = wp.tid()
        p, mixed = points[i], scalar(0.0)
        if is_inside(p, depth, height, width):
            base = base_of(p)
            fraction = fraction_of(p, base)
            for corner in range(8):
                row = row_of(base, corner, depth, height, width)
                if row >= 0:
                    mixed += corner_weight(fraction, corner) * grid[row, channel]
        found[i, channel] = mixed

    @precision.kernel
    def grad_grid(
        depth: int,
        height: int,
        width: int,
        points: points_array,
        grad_output: rows,
        max_term: wp.array(dtype=wp.int64),
        bits: int,
        sums: wp.array2d(dtype=wp.int64),
    ):
        i, channel = wp.tid()
        p = points[i]
        if is_inside(p, depth, height, width):
            base = base_of(p)
            fraction = fraction_of(p, base)
            units = scalar(
                wp.float64(grad_output[i, channel]) * power_of_two(-unit_exponent(max_term[0], bits))
            )
            for corner in range(8):
                row = row_of(base, corner, depth, height, width)
                if row >= 0:
                    wp.atomic_add(sums, row, channel, wp.int64(corner_weight(fraction, corner) * units))

    @precision.kernel
    def grad_points(
        grid: rows,
        depth: int,
        height: int,
        width: int,
        points: points_array,
        grad_output: rows,
        found: points_array,
    ):
        i = wp.tid()
        p, total, one = points[i], vec3(), scalar(1.0)
        if is_inside(p, depth, height, width):
            base = base_of(p)
            fraction = fraction_of(p, base)
            for corner in range(8):
                row = row_of(base, corner, depth, height, width)
                if row >= 0:
                    value = scalar(0.0)
                    for channel in range(grid.shape[1]):
                        value += grad_output[i, channel] * grid[row, channel]
                    x, y, z = (corner & 1) == 1, ((corner >> 1) & 1) == 1, (corner >> 2) == 1
                    u = wp.where(x, fraction[0], one - fraction[0])
                    v = wp.where(y, fraction[1], one - fraction[1])
                    w = wp.where(z, fraction[2], one - fraction[2])
                    total += vec3(
                        wp.where(x, value, -value) * v * w,
                        wp.where(y, value, -value) * u * w,
                        wp.where(z, value, -value) * u * v,
                    )
        found[i] = total

    return SimpleNamespace(sample=sample, grad_grid=grad_grid, grad_points=grad_points)
