"""Rays through a voxel grid; rays are spread over the threads.

The way back looks up some rays again, keeps where their samples are and how the sum changes with what was found
there, and hands both to `sample_grid`, which adds them to the grid in a fixed order; then come the next rays.
"""

import numba
import numpy as np
from torch import Tensor

from unrender.kernels._batch import room
from unrender.kernels._dispatch import cpu_threads
from unrender.kernels.sample_grid.cpu import _array, _corners, _near, _scatter, _sort

BLOCK = 16
"""Rays that one thread takes at a time."""
SAMPLES_AT_ONCE = 1 << 19
"""Whose gradients are kept: a number that does not depend on that of the threads."""


def forward(grid: Tensor, origins: Tensor, directions: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    color, opacity = room(grid, len(origins), grid.shape[-1] - 1), room(grid, len(origins))
    arrays = [_array(t) for t in (grid, origins, directions, distances)]
    with cpu_threads(len(origins) * distances.shape[1]):
        _look(*arrays, color.numpy(), opacity.numpy())
    return color, opacity


def backward(
    grid: Tensor, origins: Tensor, directions: Tensor, distances: Tensor, of_color: Tensor, of_opacity: Tensor
) -> Tensor:
    to_grid = room(grid, *grid.shape).zero_()
    count = max(1, SAMPLES_AT_ONCE // max(distances.shape[1], 1))
    arrays = [_array(t) for t in (grid, origins, directions, distances, of_color, of_opacity)]
    points = room(grid, min(count, len(origins)) * distances.shape[1], 3).numpy()
    slopes = room(grid, len(points), grid.shape[-1]).numpy()
    with cpu_threads(len(origins) * distances.shape[1]):
        for begin in range(0, len(origins) if distances.shape[1] else 0, count):
            end = min(begin + count, len(origins))
            _slopes(*arrays, begin, end, points, slopes)
            here = slice((end - begin) * distances.shape[1])
            order, starts = _sort(points[here], *grid.shape[:3])
            for parity in (0, 1):
                _scatter(points[here], slopes[here], order, starts, parity, to_grid.numpy())
    return to_grid


@numba.njit(cache=True, error_model="numpy", inline="always")
def _place(origins, directions, ray, distance, point):
    point[0, 0] = origins[ray, 0] + distance * directions[ray, 0]
    point[0, 1] = origins[ray, 1] + distance * directions[ray, 1]
    point[0, 2] = origins[ray, 2] + distance * directions[ray, 2]


@numba.njit(cache=True, error_model="numpy", inline="always")
def _mix(voxels, rows, shares, channel):
    r, w = rows, shares
    return (
        (w[0] * voxels[r[0], channel] + w[1] * voxels[r[1], channel])
        + (w[2] * voxels[r[2], channel] + w[3] * voxels[r[3], channel])
    ) + (
        (w[4] * voxels[r[4], channel] + w[5] * voxels[r[5], channel])
        + (w[6] * voxels[r[6], channel] + w[7] * voxels[r[7], channel])
    )


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _look(grid, origins, directions, distances, color, opacity):
    depth, height, width, channels = grid.shape
    voxels, one = grid.reshape(-1, channels), grid.dtype.type(1)
    for block in numba.prange((len(origins) + BLOCK - 1) // BLOCK):
        point = np.empty((1, 3), grid.dtype)
        for ray in range(block * BLOCK, min(len(origins), (block + 1) * BLOCK)):
            mine = distances[ray if len(distances) > 1 else 0]
            light, covered = one, one * 0
            color[ray] = 0
            for k in range(np.uint64(len(mine))):
                _place(origins, directions, ray, mine[k], point)
                if _near(point, 0, depth, height, width):
                    rows, shares = _corners(point, 0, depth, height, width)
                    alpha = _mix(voxels, rows, shares, np.uint64(0))
                    weight = light * alpha
                    for channel in range(np.uint64(1), np.uint64(channels)):
                        color[ray, channel - np.uint64(1)] += weight * _mix(voxels, rows, shares, channel)
                    covered += weight
                    light *= one - alpha
            opacity[ray] = covered


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _slopes(grid, origins, directions, distances, of_color, of_opacity, begin, end, points, slopes):
    """Fill where samples are, nan far from the grid, and the slopes by alpha and colors there."""
    depth, height, width, channels = grid.shape
    voxels, one, samples = grid.reshape(-1, channels), grid.dtype.type(1), distances.shape[1]
    for block in numba.prange((end - begin + BLOCK - 1) // BLOCK):
        point = np.empty((1, 3), grid.dtype)
        alphas, entering, brings = (
            np.empty(samples, grid.dtype),
            np.empty(samples, grid.dtype),
            np.empty(samples, grid.dtype),
        )
        for ray in range(begin + block * BLOCK, min(end, begin + (block + 1) * BLOCK)):
            first = (ray - begin) * samples
            mine = distances[ray if len(distances) > 1 else 0]
            light = one
            for k in range(samples):
                _place(origins, directions, ray, mine[k], point)
                points[first + k] = np.nan
                alphas[k] = 0
                if _near(point, 0, depth, height, width):
                    points[first + k] = point[0]
                    rows, shares = _corners(point, 0, depth, height, width)
                    alpha = _mix(voxels, rows, shares, np.uint64(0))
                    bring = of_opacity[ray]
                    for channel in range(np.uint64(1), np.uint64(channels)):
                        slope = of_color[ray, channel - np.uint64(1)]
                        bring += slope * _mix(voxels, rows, shares, channel)
                        slopes[first + k, channel] = light * alpha * slope
                    alphas[k], entering[k], brings[k] = alpha, light, bring
                    light *= one - alpha
            rest = one * 0
            for k in range(samples - 1, -1, -1):
                if not np.isnan(points[first + k, 0]):
                    slopes[first + k, 0] = entering[k] * (brings[k] - rest)
                    rest = alphas[k] * brings[k] + (one - alphas[k]) * rest
