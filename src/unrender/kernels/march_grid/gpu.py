"""Ray marching of a dense voxel grid: one thread per channel of each ray.

In the backward pass, one thread per sample looks up its alpha and what it brings; one per ray turns them into the
gradient of the alpha and the weight; one per channel of each sample adds to the voxels, in 64-bit fixed point, so that
results do not depend on the order of threads. What belongs to a sample is stored with the rays side by side.
"""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._fixed_point import from_sums
from unrender.kernels._warp import (
    Precision,
    count_log2,
    launch,
    per_precision,
    power_of_two,
    size_bits,
    unit_exponent,
)
from unrender.kernels.sample_grid.gpu import corner_functions, rows_and_size

SAMPLES_AT_ONCE = 1 << 24
"""Samples per batch of the backward pass."""


def forward(grid: Tensor, origins: Tensor, directions: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    rays = (origins.contiguous(), directions.contiguous(), distances.contiguous())
    seen = grid.new_empty(len(origins), grid.shape[-1])
    launch(_kernels(grid.dtype).look, tuple(seen.shape), *rows_and_size(grid), *rays, seen)
    return seen[:, 1:].contiguous(), seen[:, 0].clone()


def backward(
    grid: Tensor, origins: Tensor, directions: Tensor, distances: Tensor, of_color: Tensor, of_opacity: Tensor
) -> Tensor:
    kernels, (rows, *size), samples = _kernels(grid.dtype), rows_and_size(grid), distances.shape[1]
    slopes = torch.cat([of_opacity[:, None], of_color], 1)
    count = max(1, SAMPLES_AT_ONCE // max(samples, 1))
    to_grid = torch.zeros_like(rows)
    for begin in range(0, len(origins) if samples else 0, count):
        part = slice(begin, begin + count)
        rays = (
            origins[part].contiguous(),
            directions[part].contiguous(),
            (distances[part] if len(distances) > 1 else distances).contiguous(),
        )
        mine, number = slopes[part].contiguous(), len(rays[0])
        slope, weight, light = grid.new_empty(3, samples, number)
        greatest = torch.zeros(1, dtype=torch.int64, device=grid.device)
        launch(kernels.look_back, (samples, number), rows, *size, *rays, mine, slope, weight)
        launch(kernels.weigh, number, mine, slope, weight, light, greatest)
        sums = torch.zeros(rows.shape, dtype=torch.int64, device=grid.device)
        bits = count_log2(number * samples)
        threads = (samples, number, grid.shape[-1])
        launch(kernels.scatter, threads, *size, *rays, mine, slope, weight, greatest, bits, sums)
        to_grid += from_sums(sums, greatest, bits, grid.dtype)
    return to_grid.view(grid.shape)


@per_precision("march_grid")
def _kernels(precision: Precision) -> SimpleNamespace:
    scalar, vec3 = precision.scalar, precision.vec3
    rows, vectors = wp.array2d(dtype=scalar), wp.array(dtype=vec3)
    corners = corner_functions(scalar)
    is_near, base_of, part_of = corners.is_near, corners.base_of, corners.part_of
    row_of, share_of = corners.row_of, corners.share_of

    @wp.func
    def distance_of(distances: rows, ray: int, k: int):
        if distances.shape[0] == 1:
            return distances[0, k]
        return distances[ray, k]

    @precision.kernel
    def look(
        grid: rows,
        depth: int,
        height: int,
        width: int,
        origins: vectors,
        directions: vectors,
        distances: rows,
        seen: rows,
    ):
        ray, channel = wp.tid()
        origin, direction = origins[ray], directions[ray]
        left, total = scalar(1.0), scalar(0.0)
        for k in range(distances.shape[1]):
            p = origin + distance_of(distances, ray, k) * direction
            if is_near(p, depth, height, width):
                base = base_of(p)
                part = part_of(p, base)
                alpha, value = scalar(0.0), scalar(0.0)
                for corner in range(8):
                    row = row_of(base, corner, depth, height, width)
                    if row >= 0:
                        share = share_of(part, corner)
                        alpha += share * grid[row, 0]
                        value += share * grid[row, channel]
                weight = left * alpha
                total += wp.where(channel == 0, weight, weight * value)
                left *= scalar(1.0) - alpha
        seen[ray, channel] = total

    @precision.kernel
    def look_back(
        grid: rows,
        depth: int,
        height: int,
        width: int,
        origins: vectors,
        directions: vectors,
        distances: rows,
        slopes: rows,
        bring: rows,
        alphas: rows,
    ):
        """Fill each sample's alpha, and the slope of the outputs by its weight."""
        k, ray = wp.tid()
        alpha, total = scalar(0.0), scalar(0.0)
        p = origins[ray] + distance_of(distances, ray, k) * directions[ray]
        if is_near(p, depth, height, width):
            total = slopes[ray, 0]
            base = base_of(p)
            part = part_of(p, base)
            for corner in range(8):
                row = row_of(base, corner, depth, height, width)
                if row >= 0:
                    share = share_of(part, corner)
                    alpha += share * grid[row, 0]
                    for channel in range(1, grid.shape[1]):
                        total += share * slopes[ray, channel] * grid[row, channel]
        bring[k, ray] = total
        alphas[k, ray] = alpha

    @precision.kernel
    def weigh(slopes: rows, bring: rows, alphas: rows, light: rows, greatest: wp.array(dtype=wp.int64)):
        """Replace what samples bring by the slope by their alpha, and their alpha by their weight."""
        ray = wp.tid()
        samples, left, largest = bring.shape[0], scalar(1.0), scalar(0.0)
        for channel in range(1, slopes.shape[1]):
            largest += wp.abs(slopes[ray, channel])
        for k in range(samples):
            light[k, ray] = left
            left *= scalar(1.0) - alphas[k, ray]
        rest, steepest = scalar(0.0), wp.int64(0)
        for i in range(samples):
            k = samples - 1 - i
            brought, taken, reaching = bring[k, ray], alphas[k, ray], light[k, ray]
            slope, weight = reaching * (brought - rest), reaching * taken
            rest = taken * brought + (scalar(1.0) - taken) * rest
            bring[k, ray] = slope
            alphas[k, ray] = weight
            steepest = wp.max(steepest, size_bits(wp.float64(slope)))
            steepest = wp.max(steepest, size_bits(wp.float64(weight * largest)))
        if steepest > greatest[0]:
            wp.atomic_max(greatest, 0, steepest)

    @precision.kernel
    def scatter(
        depth: int,
        height: int,
        width: int,
        origins: vectors,
        directions: vectors,
        distances: rows,
        slopes: rows,
        alpha_slopes: rows,
        weights: rows,
        greatest: wp.array(dtype=wp.int64),
        bits: int,
        sums: wp.array2d(dtype=wp.int64),
    ):
        k, ray, channel = wp.tid()
        p = origins[ray] + distance_of(distances, ray, k) * directions[ray]
        slope = alpha_slopes[k, ray]
        if channel > 0:
            slope = weights[k, ray] * slopes[ray, channel]
        if slope != scalar(0.0) and is_near(p, depth, height, width):
            units = scalar(wp.float64(slope) * power_of_two(-unit_exponent(greatest[0], bits)))
            base = base_of(p)
            part = part_of(p, base)
            for corner in range(8):
                row = row_of(base, corner, depth, height, width)
                if row >= 0:
                    wp.atomic_add(sums, row, channel, wp.int64(share_of(part, corner) * units))

    return SimpleNamespace(look=look, look_back=look_back, weigh=weigh, scatter=scatter)
