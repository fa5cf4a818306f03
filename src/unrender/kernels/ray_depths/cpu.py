"""Depth statistics of rays, parallel over rays; each is traversed three times, in double precision."""

import numba
import numpy as np
from torch import Tensor

from unrender.kernels._batch import allocate
from unrender.kernels._dispatch import cpu_threads

BLOCK = 64
"""Rays per task."""


def forward(
    weights: Tensor, distances: Tensor, lengths: Tensor, offsets: Tensor, threshold: float, bound: float
) -> tuple[Tensor, ...]:
    results = tuple(allocate(weights, len(offsets) - 1) for _ in range(5))
    arrays = [t.contiguous().numpy() for t in (weights, distances, lengths, offsets)]
    with cpu_threads(len(weights)):
        _measure(*arrays, threshold, bound, *(result.numpy() for result in results))
    return results


@numba.njit(inline="always", error_model="numpy")
def _fraction(t, length, low, high):
    """Return the fraction of the interval of a sample that lies between two distances."""
    if length > 0:
        overlap = min(t + length / 2, high) - max(t - length / 2, low)
        return min(max(overlap / length, 0.0), 1.0)
    return 1.0 if low <= t <= high else 0.0


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _measure(
    weights, distances, lengths, offsets, threshold, bound, expected, median, first, std, near_median
):
    rays = len(offsets) - 1
    for block in numba.prange((rays + BLOCK - 1) // BLOCK):
        for ray in range(block * BLOCK, min(rays, (block + 1) * BLOCK)):
            start, end = offsets[ray], offsets[ray + 1]
            total, moment = 0.0, 0.0
            for i in range(start, end):
                w = np.float64(weights[i])
                total += w
                moment += w * distances[i]
            expected[ray] = median[ray] = first[ray] = std[ray] = near_median[ray] = 0
            if not total > 0:
                continue
            mean, target = moment / total, total / 2
            variance, reached, median_distance, is_half, crossed = 0.0, 0.0, 0.0, False, False
            for i in range(start, end):
                w, t, length = np.float64(weights[i]), np.float64(distances[i]), np.float64(lengths[i])
                variance += w * ((t - mean) ** 2 + length * length / 12)
                after = reached + w
                if not is_half and after >= target and w > 0:
                    is_half = True
                    median_distance = t + length * ((target - reached) / w - 0.5)
                if not crossed and after >= threshold and w > 0:
                    crossed = True
                    first[ray] = t + length * ((threshold - reached) / w - 0.5)
                reached = after
            low, high, near = (1 - bound) * median_distance, (1 + bound) * median_distance, 0.0
            for i in range(start, end):
                near += weights[i] * _fraction(np.float64(distances[i]), np.float64(lengths[i]), low, high)
            expected[ray], median[ray], std[ray], near_median[ray] = (
                mean, median_distance, np.sqrt(variance / total), near,
            )  # fmt: skip
