"""Trilinear interpolation, parallel over points.

In the backward pass, points are sorted by slabs of voxel layers. A slab writes to itself and the first layer of the
next one, so that all even slabs can be processed in parallel, then all odd ones, and every voxel accumulates its
gradient in the same order for any number of threads.
"""

import numba
import numpy as np
from torch import Tensor

from unrender.kernels._batch import allocate, array
from unrender.kernels._dispatch import cpu_threads

BLOCK = 1024
"""Points per task."""
SLAB = 2
"""Voxel layers per slab."""
CHUNKS = 64
"""Chunks of points for sorting: their number does not depend on the number of threads."""


def forward(grid: Tensor, points: Tensor) -> Tensor:
    mixed = allocate(grid, len(points), grid.shape[-1])
    with cpu_threads(len(points)):
        _sample(array(grid), array(points), mixed.numpy())
    return mixed


def backward(
    grid: Tensor, points: Tensor, grad_output: Tensor, needs_grad: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Compute the gradients of grid and points for which `needs_grad` is true."""
    grad_grid = allocate(grid, *grid.shape).zero_() if needs_grad[0] else None
    grad_points = allocate(points, *points.shape) if needs_grad[1] else None
    arrays = array(grid), array(points), array(grad_output)
    with cpu_threads(len(points)):
        if grad_points is not None:
            _point_gradient(*arrays, grad_points.numpy())
        if grad_grid is not None and len(points):
            order, starts = _sort(arrays[1], *grid.shape[:3])
            for parity in (0, 1):
                _scatter(arrays[1], arrays[2], order, starts, parity, grad_grid.numpy())
    return grad_grid, grad_points


@numba.njit(cache=True, error_model="numpy")
def is_inside(x, y, z, depth, height, width):
    """Return whether a point is inside the grid, or less than half a voxel outside."""
    in_x, in_y, in_z = (
        x > -0.5 and x < width + 0.5,
        y > -0.5 and y < height + 0.5,
        z > -0.5 and z < depth + 0.5,
    )
    return in_x and in_y and in_z


@numba.njit(cache=True, error_model="numpy")
def _axis(position, size, half):
    """Return the two voxels around a coordinate and their weights, 0 for voxels outside the grid.

    An int times a float32 is a float64 in numba, and slow: 0 and 1 are therefore computed from `half`.
    """
    shifted = position - half
    base = np.floor(shifted)
    i, fraction, zero = int(base), shifted - base, half - half
    first, first_weight = (i, half + half - fraction) if i >= 0 else (0, zero)
    second, second_weight = (i + 1, fraction) if i + 1 < size else (i, zero)
    return first, second, first_weight, second_weight


@numba.njit(cache=True, error_model="numpy")
def corners(x, y, z, depth, height, width, half):
    """Return the flat indices of the eight voxels around a point, in pairs along x, and their weights."""
    x0, x1, wx0, wx1 = _axis(x, width, half)
    y0, y1, wy0, wy1 = _axis(y, height, half)
    z0, z1, wz0, wz1 = _axis(z, depth, half)
    first, second = np.uint64(x0), np.uint64(x1)
    a, b = np.uint64((z0 * height + y0) * width), np.uint64((z0 * height + y1) * width)
    c, d = np.uint64((z1 * height + y0) * width), np.uint64((z1 * height + y1) * width)
    rows = (a + first, a + second, b + first, b + second, c + first, c + second, d + first, d + second)
    wa, wb, wc, wd = wz0 * wy0, wz0 * wy1, wz1 * wy0, wz1 * wy1
    weights = (wa * wx0, wa * wx1, wb * wx0, wb * wx1, wc * wx0, wc * wx1, wd * wx0, wd * wx1)
    return rows, weights


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _sample(grid, points, mixed):
    depth, height, width, channels = grid.shape
    voxels = grid.reshape(-1, channels)
    for block in numba.prange((len(points) + BLOCK - 1) // BLOCK):
        for n in range(block * BLOCK, min(len(points), (block + 1) * BLOCK)):
            if is_inside(points[n, 0], points[n, 1], points[n, 2], depth, height, width):
                r, w = corners(
                    points[n, 0], points[n, 1], points[n, 2], depth, height, width, points.dtype.type(0.5)
                )
                for k in range(np.uint64(channels)):
                    mixed[n, k] = (
                        (w[0] * voxels[r[0], k] + w[1] * voxels[r[1], k])
                        + (w[2] * voxels[r[2], k] + w[3] * voxels[r[3], k])
                    ) + (
                        (w[4] * voxels[r[4], k] + w[5] * voxels[r[5], k])
                        + (w[6] * voxels[r[6], k] + w[7] * voxels[r[7], k])
                    )
            else:
                mixed[n] = 0


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _point_gradient(grid, points, grad_output, grad_points):
    depth, height, width, channels = grid.shape
    voxels, half = grid.reshape(-1, channels), points.dtype.type(0.5)
    zero, unit = points.dtype.type(0), points.dtype.type(1)
    for block in numba.prange((len(points) + BLOCK - 1) // BLOCK):
        for n in range(block * BLOCK, min(len(points), (block + 1) * BLOCK)):
            sx, sy, sz = zero, zero, zero
            if is_inside(points[n, 0], points[n, 1], points[n, 2], depth, height, width):
                x0, x1, wx0, wx1 = _axis(points[n, 0], width, half)
                y0, y1, wy0, wy1 = _axis(points[n, 1], height, half)
                z0, z1, wz0, wz1 = _axis(points[n, 2], depth, half)
                left = points[n, 0] >= half  # the padding is constant: no gradient from it
                right = points[n, 0] < width - half
                for z, wz, dz in ((z0, wz0, -unit), (z1, wz1, unit)):
                    for y, wy, dy in ((y0, wy0, -unit), (y1, wy1, unit)):
                        row = np.uint64((z * height + y) * width)
                        one, other = row + np.uint64(x0), row + np.uint64(x1)
                        first, second = zero, zero
                        for channel in range(np.uint64(channels)):
                            first += grad_output[n, channel] * voxels[one, channel]
                            second += grad_output[n, channel] * voxels[other, channel]
                        first, second = first if left else zero, second if right else zero
                        in_y = points[n, 1] >= half if dy < 0 else points[n, 1] < height - half
                        in_z = points[n, 2] >= half if dz < 0 else points[n, 2] < depth - half
                        along = wx0 * first + wx1 * second
                        sx += wz * wy * (second - first)
                        sy += dy * wz * along if in_y else zero
                        sz += dz * wy * along if in_z else zero
            grad_points[n, 0], grad_points[n, 1], grad_points[n, 2] = sx, sy, sz


@numba.njit(cache=True, error_model="numpy")
def _slab(points, n, depth, height, width, slabs):
    if not is_inside(points[n, 0], points[n, 1], points[n, 2], depth, height, width):
        return slabs
    return (int(np.floor(points[n, 2] - points.dtype.type(0.5))) + 1) // SLAB


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _sort(points, depth, height, width):
    """Return the order of the points by slab, and the start of each slab; points outside the grid come last."""
    slabs, chunk = depth // SLAB + 1, (len(points) + CHUNKS - 1) // CHUNKS
    positions = np.zeros((CHUNKS + 1, slabs + 1), np.int64)
    for p in numba.prange(CHUNKS):
        for n in range(p * chunk, min(len(points), (p + 1) * chunk)):
            positions[p + 1, _slab(points, n, depth, height, width, slabs)] += 1
    starts = np.zeros(slabs + 2, np.int64)
    for slab in range(slabs + 1):
        starts[slab + 1] = starts[slab] + positions[:, slab].sum()
        positions[0, slab] = starts[slab]
        for p in range(CHUNKS):
            positions[p + 1, slab] += positions[p, slab]
    order = np.empty(len(points), np.int64)
    for p in numba.prange(CHUNKS):
        for n in range(p * chunk, min(len(points), (p + 1) * chunk)):
            slab = _slab(points, n, depth, height, width, slabs)
            order[positions[p, slab]] = n
            positions[p, slab] += 1
    return order, starts


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _scatter(points, grad_output, order, starts, parity, grad_grid):
    depth, height, width, channels = grad_grid.shape
    voxels, half, slabs = grad_grid.reshape(-1, channels), points.dtype.type(0.5), len(starts) - 2
    for pair in numba.prange((slabs + 1 - parity) // 2):
        slab = 2 * pair + parity
        for position in range(starts[slab], starts[slab + 1]):
            n = order[position]
            x0, x1, wx0, wx1 = _axis(points[n, 0], width, half)
            y0, y1, wy0, wy1 = _axis(points[n, 1], height, half)
            z0, z1, wz0, wz1 = _axis(points[n, 2], depth, half)
            for z, wz in ((z0, wz0), (z1, wz1)):
                for y, wy in ((y0, wy0), (y1, wy1)):
                    row, w = np.uint64((z * height + y) * width), wz * wy
                    one, other = row + np.uint64(x0), row + np.uint64(x1)
                    for channel in range(np.uint64(channels)):
                        gradient = w * grad_output[n, channel]
                        voxels[one, channel] += wx0 * gradient
                        voxels[other, channel] += wx1 * gradient
