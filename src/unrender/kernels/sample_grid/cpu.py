"""Trilinear look-up; points are spread over the threads.

On the way back to the grid, points are sorted by the slab of voxels they lie in. A slab touches itself and the first
layer of the next one: so all even slabs can be added up at once, then all odd ones, and every voxel gets its shares in
the same order for any number of threads.
"""

import numba
import numpy as np
from torch import Tensor

from unrender.kernels._batch import array, room
from unrender.kernels._dispatch import cpu_threads

BLOCK = 1024
"""Points that one thread takes at a time."""
SLAB = 2
"""Layers of voxels that belong together."""
PARTS = 64
"""Pieces in which points are sorted: a number that does not depend on that of the threads."""


def forward(grid: Tensor, points: Tensor) -> Tensor:
    mixed = room(grid, len(points), grid.shape[-1])
    with cpu_threads(len(points)):
        _look_up(array(grid), array(points), mixed.numpy())
    return mixed


def backward(
    grid: Tensor, points: Tensor, cotangent: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """`wanted` says which of grid and points need a gradient."""
    to_grid = room(grid, *grid.shape).zero_() if wanted[0] else None
    to_points = room(points, *points.shape) if wanted[1] else None
    arrays = array(grid), array(points), array(cotangent)
    with cpu_threads(len(points)):
        if to_points is not None:
            _slopes(*arrays, to_points.numpy())
        if to_grid is not None and len(points):
            order, starts = _sort(arrays[1], *grid.shape[:3])
            for parity in (0, 1):
                _scatter(arrays[1], arrays[2], order, starts, parity, to_grid.numpy())
    return to_grid, to_points


@numba.njit(cache=True, error_model="numpy")
def near(x, y, z, depth, height, width):
    """Tell whether a point is less than half a voxel outside of the grid."""
    in_x, in_y, in_z = (
        x > -0.5 and x < width + 0.5,
        y > -0.5 and y < height + 0.5,
        z > -0.5 and z < depth + 0.5,
    )
    return in_x and in_y and in_z


@numba.njit(cache=True, error_model="numpy")
def _axis(position, size, half):
    """Return the two voxels around a position near the grid, and their shares: none for one beyond the grid.

    An int times a float32 would be a float64, and slow: so 0 and 1 are made of halves.
    """
    behind = position - half
    base = np.floor(behind)
    i, share, nothing = int(base), behind - base, half - half
    first, first_share = (i, half + half - share) if i >= 0 else (0, nothing)
    second, second_share = (i + 1, share) if i + 1 < size else (i, nothing)
    return first, second, first_share, second_share


@numba.njit(cache=True, error_model="numpy")
def corners(x, y, z, depth, height, width, half):
    """Return the rows of the eight voxels around a point near the grid, in pairs along x, and their shares."""
    x0, x1, wx0, wx1 = _axis(x, width, half)
    y0, y1, wy0, wy1 = _axis(y, height, half)
    z0, z1, wz0, wz1 = _axis(z, depth, half)
    first, second = np.uint64(x0), np.uint64(x1)
    a, b = np.uint64((z0 * height + y0) * width), np.uint64((z0 * height + y1) * width)
    c, d = np.uint64((z1 * height + y0) * width), np.uint64((z1 * height + y1) * width)
    rows = (a + first, a + second, b + first, b + second, c + first, c + second, d + first, d + second)
    wa, wb, wc, wd = wz0 * wy0, wz0 * wy1, wz1 * wy0, wz1 * wy1
    shares = (wa * wx0, wa * wx1, wb * wx0, wb * wx1, wc * wx0, wc * wx1, wd * wx0, wd * wx1)
    return rows, shares


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _look_up(grid, points, mixed):
    depth, height, width, channels = grid.shape
    voxels = grid.reshape(-1, channels)
    for block in numba.prange((len(points) + BLOCK - 1) // BLOCK):
        for n in range(block * BLOCK, min(len(points), (block + 1) * BLOCK)):
            if near(points[n, 0], points[n, 1], points[n, 2], depth, height, width):
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
def _slopes(grid, points, cotangent, to_points):
    depth, height, width, channels = grid.shape
    voxels, half = grid.reshape(-1, channels), points.dtype.type(0.5)
    zero, unit = points.dtype.type(0), points.dtype.type(1)
    for block in numba.prange((len(points) + BLOCK - 1) // BLOCK):
        for n in range(block * BLOCK, min(len(points), (block + 1) * BLOCK)):
            sx, sy, sz = zero, zero, zero
            if near(points[n, 0], points[n, 1], points[n, 2], depth, height, width):
                x0, x1, wx0, wx1 = _axis(points[n, 0], width, half)
                y0, y1, wy0, wy1 = _axis(points[n, 1], height, half)
                z0, z1, wz0, wz1 = _axis(points[n, 2], depth, half)
                left = points[n, 0] >= half  # beyond the grid there is 0, which has no slope of its own
                right = points[n, 0] < width - half
                for z, wz, dz in ((z0, wz0, -unit), (z1, wz1, unit)):
                    for y, wy, dy in ((y0, wy0, -unit), (y1, wy1, unit)):
                        row = np.uint64((z * height + y) * width)
                        one, other = row + np.uint64(x0), row + np.uint64(x1)
                        first, second = zero, zero
                        for channel in range(np.uint64(channels)):
                            first += cotangent[n, channel] * voxels[one, channel]
                            second += cotangent[n, channel] * voxels[other, channel]
                        first, second = first if left else zero, second if right else zero
                        in_y = points[n, 1] >= half if dy < 0 else points[n, 1] < height - half
                        in_z = points[n, 2] >= half if dz < 0 else points[n, 2] < depth - half
                        along = wx0 * first + wx1 * second
                        sx += wz * wy * (second - first)
                        sy += dy * wz * along if in_y else zero
                        sz += dz * wy * along if in_z else zero
            to_points[n, 0], to_points[n, 1], to_points[n, 2] = sx, sy, sz


@numba.njit(cache=True, error_model="numpy")
def _slab(points, n, depth, height, width, slabs):
    if not near(points[n, 0], points[n, 1], points[n, 2], depth, height, width):
        return slabs
    return (int(np.floor(points[n, 2] - points.dtype.type(0.5))) + 1) // SLAB


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _sort(points, depth, height, width):
    """Return the points' order by slabs, and where each slab begins; points far from the grid come last."""
    slabs, part = depth // SLAB + 1, (len(points) + PARTS - 1) // PARTS
    places = np.zeros((PARTS + 1, slabs + 1), np.int64)
    for p in numba.prange(PARTS):
        for n in range(p * part, min(len(points), (p + 1) * part)):
            places[p + 1, _slab(points, n, depth, height, width, slabs)] += 1
    starts = np.zeros(slabs + 2, np.int64)
    for slab in range(slabs + 1):
        starts[slab + 1] = starts[slab] + places[:, slab].sum()
        places[0, slab] = starts[slab]
        for p in range(PARTS):
            places[p + 1, slab] += places[p, slab]
    order = np.empty(len(points), np.int64)
    for p in numba.prange(PARTS):
        for n in range(p * part, min(len(points), (p + 1) * part)):
            slab = _slab(points, n, depth, height, width, slabs)
            order[places[p, slab]] = n
            places[p, slab] += 1
    return order, starts


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _scatter(points, cotangent, order, starts, parity, to_grid):
    depth, height, width, channels = to_grid.shape
    voxels, half, slabs = to_grid.reshape(-1, channels), points.dtype.type(0.5), len(starts) - 2
    for pair in numba.prange((slabs + 1 - parity) // 2):
        slab = 2 * pair + parity
        for place in range(starts[slab], starts[slab + 1]):
            n = order[place]
            x0, x1, wx0, wx1 = _axis(points[n, 0], width, half)
            y0, y1, wy0, wy1 = _axis(points[n, 1], height, half)
            z0, z1, wz0, wz1 = _axis(points[n, 2], depth, half)
            for z, wz in ((z0, wz0), (z1, wz1)):
                for y, wy in ((y0, wy0), (y1, wy1)):
                    row, w = np.uint64((z * height + y) * width), wz * wy
                    one, other = row + np.uint64(x0), row + np.uint64(x1)
                    for channel in range(np.uint64(channels)):
                        slope = w * cotangent[n, channel]
                        voxels[one, channel] += wx0 * slope
                        voxels[other, channel] += wx1 * slope
