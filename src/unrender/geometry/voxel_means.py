"""Reduction of large point clouds: means over the voxels of a grid."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
FIRST_OCCUPANCY = 0.1
"""Area of the surface relative to that of the bounding box, with which the search for a voxel size starts."""
MIN_FILLED = 0.85
"""Fraction of the requested number of voxels with which a voxel size is accepted."""
MAX_TRIES = 12
BITS = 21
"""Bits of the position of a voxel along each axis; points beyond share the outermost voxels."""


class VoxelMeans(NamedTuple):
    """Means of the rows of the points in each occupied voxel."""

    rows: Array
    counts: npt.NDArray[np.int64]
    """Number of points in each voxel."""
    voxel_size: float


def voxel_means(rows: Array, max_count: int) -> VoxelMeans:
    """Average points over the smallest voxels of which at most `max_count` are occupied, about.

    Each row starts with the position of a point; other columns are averaged as well. Unlike a random sample, means use
    all points: independent errors of n points in a voxel fall by √n.
    """
    points = rows[:, :3]
    voxel_size = _voxel_size(points, max_count)
    keys = _voxel_keys(points, voxel_size)
    occupied = _different(keys)
    voxel = np.searchsorted(occupied, keys)
    counts = np.bincount(voxel, minlength=len(occupied))
    first = rows[0]  # sums of large coordinates would lose digits
    sums = [np.bincount(voxel, rows[:, i] - first[i], len(occupied)) for i in range(rows.shape[1])]
    return VoxelMeans(first + np.stack(sums, 1) / counts[:, None], counts, voxel_size)


def _voxel_size(points: Array, max_count: int) -> float:
    """Search for the voxel size: a secant step for points on a surface, within the interval that is left."""
    sample = points[:: len(points) // 100_000 + 1]
    x, y, z = np.quantile(sample, 0.99, axis=0) - np.quantile(sample, 0.01, axis=0)
    size = math.sqrt(FIRST_OCCUPANCY * 2 * float(x * y + y * z + z * x) / max_count) or max(x, y, z) or 1.0
    smallest, largest = 0.0, math.inf
    for _ in range(MAX_TRIES):
        count = len(_different(_voxel_keys(points, size)))
        if MIN_FILLED * max_count <= count <= max_count:
            return size
        smallest, largest = (size, largest) if count > max_count else (smallest, size)
        size *= math.sqrt(count / (0.95 * max_count))
        if not smallest < size < largest:
            size = 2 * smallest if largest == math.inf else (smallest + largest) / 2
    return largest if largest < math.inf else size


def _different(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the values that occur, in ascending order; `np.unique` hashes them, which takes ten times longer."""
    keys = np.sort(keys)
    return keys[np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])]


def _voxel_keys(points: Array, size: float) -> npt.NDArray[np.int64]:
    """Return an integer for each point that identifies its voxel."""
    half = 2 ** (BITS - 1)
    center = np.median(points[:: len(points) // 100_000 + 1], axis=0)
    keys = np.zeros(len(points), np.int64)
    for axis in range(3):
        steps = np.rint((points[:, axis] - center[axis]) / size).clip(-half, half - 1)
        keys = (keys << BITS) | (steps.astype(np.int64) + half)
    return keys
