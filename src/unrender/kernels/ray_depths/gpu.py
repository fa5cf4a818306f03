"""Depth statistics of rays: one thread per ray, in double precision."""

from types import SimpleNamespace

import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision


def forward(
    weights: Tensor, distances: Tensor, lengths: Tensor, offsets: Tensor, threshold: float, bound: float
) -> tuple[Tensor, ...]:
    rays = len(offsets) - 1
    results = tuple(weights.new_empty(rays) for _ in range(5))
    arrays = [t.contiguous() for t in (weights, distances, lengths, offsets.long())]
    launch(_kernels(weights.dtype).measure, rays, *arrays, threshold, bound, *results)
    return results


@wp.func
def interval_fraction(t: wp.float64, length: wp.float64, low: wp.float64, high: wp.float64):
    """Return the fraction of the interval of a sample that lies between two distances."""
    zero, one, half = wp.float64(0.0), wp.float64(1.0), wp.float64(0.5) * length
    if length > zero:
        return wp.clamp((wp.min(t + half, high) - wp.max(t - half, low)) / length, zero, one)
    return wp.where(low <= t and t <= high, one, zero)


@per_precision("ray_depths")
def _kernels(precision: Precision) -> SimpleNamespace:
    scalar, double = precision.scalar, wp.float64
    row = wp.array(dtype=scalar)

    @precision.kernel
    def measure(
        weights: row,
        distances: row,
        lengths: row,
        offsets: wp.array(dtype=wp.int64),
        threshold: wp.float64,
        bound: wp.float64,
        expected: row,
        median: row,
        first: row,
        std: row,
        near_median: row,
    ):
        ray = wp.tid()
        begin, end = int(offsets[ray]), int(offsets[ray + 1])
        total, moment = double(0.0), double(0.0)
        for i in range(begin, end):
            total += double(weights[i])
            moment += double(weights[i]) * double(distances[i])
        mean, deviation, half_distance, crossing, near = (
            double(0.0),
            double(0.0),
            double(0.0),
            double(0.0),
            double(0.0),
        )
        if total > double(0.0):
            mean = moment / total
            half, variance, reached = double(0.5) * total, double(0.0), double(0.0)
            is_half, crossed = bool(False), bool(False)
            for i in range(begin, end):
                w, t, length = double(weights[i]), double(distances[i]), double(lengths[i])
                variance += w * ((t - mean) * (t - mean) + length * length / double(12.0))
                after = reached + w
                if not is_half and after >= half and w > double(0.0):
                    is_half = True
                    half_distance = t + length * ((half - reached) / w - double(0.5))
                if not crossed and after >= threshold and w > double(0.0):
                    crossed = True
                    crossing = t + length * ((threshold - reached) / w - double(0.5))
                reached = after
            low, high = (double(1.0) - bound) * half_distance, (double(1.0) + bound) * half_distance
            for i in range(begin, end):
                fraction = interval_fraction(double(distances[i]), double(lengths[i]), low, high)
                near += double(weights[i]) * fraction
            deviation = wp.sqrt(variance / total)
        expected[ray] = scalar(mean)
        median[ray] = scalar(half_distance)
        first[ray] = scalar(crossing)
        std[ray] = scalar(deviation)
        near_median[ray] = scalar(near)

    return SimpleNamespace(measure=measure)
