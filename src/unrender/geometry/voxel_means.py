"""Reduction of large point clouds: means over the voxels of a grid."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
FIRST_OCCUPANCY = 0.1
"""Area of the surface relative to that of the bounding box, with which the search for a voxel size starts."""
MIN_FILLED, MAX_FILLED = 0.45, 0.55
"""Number of voxels with a point of the sample, over the number of these points."""
MAX_TRIES = 12
BITS = 21
"""Bits of the position of a voxel along each axis; points beyond are left out."""
NEIGHBORS = np.array(
    [(x << 2 * BITS) + (y << BITS) + z for x, y, z in itertools.product((-1, 0, 1), repeat=3)]
)
"""Differences of the keys of a voxel and of those next to it."""


class VoxelMeans(NamedTuple):
    """Means of the rows of the points in each voxel."""

    rows: Array
    counts: npt.NDArray[np.int64]
    """Number of points in each voxel."""
    voxel_size: float


def voxel_means(rows: Array, sample: Array) -> VoxelMeans:
    """Average points in voxels about as large as the distance between the points of a sample of them.

    Only voxels with a point of the sample, and those next to them, count: without outliers in the sample, there are
    few in the means. Each row starts with the position of a point; other columns are averaged as well. Unlike the
    sample, means use all points: independent errors of n points in a voxel fall by √n. There are at most as
    many means as points in the sample.
    """
    center = np.median(sample, axis=0)
    voxel_size = _voxel_size(sample - center)
    voxel, counts = _assigned(rows[:, :3] - center, sample - center, voxel_size)
    while (count := np.count_nonzero(counts)) > len(sample):  # where the sample is sparser than elsewhere
        voxel_size *= max(1.1, math.sqrt(count / len(sample)))
        voxel, counts = _assigned(rows[:, :3] - center, sample - center, voxel_size)
    is_near = voxel >= 0
    voxel, rows = voxel[is_near], rows[is_near]
    origin = np.r_[center, np.zeros(rows.shape[1] - 3)]  # sums of large coordinates would lose digits
    sums = [np.bincount(voxel, rows[:, i] - origin[i], len(counts)) for i in range(rows.shape[1])]
    means = origin + np.stack(sums, 1) / np.maximum(counts, 1)[:, None]
    return VoxelMeans(means[counts > 0], counts[counts > 0], voxel_size)


def _assigned(
    points: Array, sample: Array, voxel_size: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find the voxel of each point, -1 if it has no point of the sample nearby; also return the points in each."""
    is_within = np.abs(sample).max(axis=1) < (2 ** (BITS - 1) - 3) * voxel_size
    occupied = _different(_voxel_keys(sample[is_within], voxel_size))
    near = _different((occupied[:, None] + NEIGHBORS).ravel())
    keys = _voxel_keys(points, voxel_size)
    voxel = np.searchsorted(near, keys).clip(max=len(near) - 1)
    voxel[near[voxel] != keys] = -1
    return voxel, np.bincount(voxel[voxel >= 0], minlength=len(near))


def _voxel_size(sample: Array) -> float:
    """Search for the voxel size: a secant step for points on a surface, within the interval that is left."""
    x, y, z = np.quantile(sample, 0.99, axis=0) - np.quantile(sample, 0.01, axis=0)
    size = math.sqrt(FIRST_OCCUPANCY * 2 * float(x * y + y * z + z * x) / len(sample)) or max(x, y, z) or 1.0
    # of many equal points, no size is small enough
    smallest, largest = max(x, y, z) / 2 ** (BITS - 2), math.inf
    for _ in range(MAX_TRIES):
        filled = len(_different(_voxel_keys(sample, size))) / len(sample)
        if MIN_FILLED <= filled <= MAX_FILLED:
            break
        smallest, largest = (size, largest) if filled > MAX_FILLED else (smallest, size)
        size *= math.sqrt(filled / MIN_FILLED) if filled < MIN_FILLED else 1.3
        if not smallest < size < largest:
            size = (smallest + largest) / 2
    return float(size)


def _different(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the values that occur, in ascending order; `np.unique` hashes them, which takes ten times longer."""
    keys = np.sort(keys)
    return keys[np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])]


def _voxel_keys(points: Array, size: float) -> npt.NDArray[np.int64]:
    """Return an integer for each point that identifies its voxel."""
    half = 2 ** (BITS - 1)
    keys = np.zeros(len(points), np.int64)
    for axis in range(3):
        steps = np.rint(points[:, axis] / size).clip(1 - half, half - 2)
        keys = (keys << BITS) | (steps.astype(np.int64) + half)
    return keys
