"""Ray marching of a dense voxel grid: one thread per channel of each ray.

In the backward pass, one thread per sample looks up its alpha and what it brings; one per ray turns them into the
gradient of the alpha and the weight; one per channel of a part of a ray adds to the voxels, in 64-bit fixed point, so
that results do not depend on the order of threads. As a ray goes from cell to cell, it shares voxels with the cell
before, which halves the additions. What belongs to a sample is stored with the rays side by side.
"""

from types import SimpleNamespace
from typing import Any

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

SAMPLES_AT_ONCE = 1 << 25
"""Samples per batch of the backward pass."""
SAMPLES_PER_THREAD = 32
"""Consecutive samples of a ray whose gradients one thread adds."""
FAR = -4
"""Coordinate of a cell that is no neighbor of any."""


def forward(grid: Tensor, origins: Tensor, directions: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    rays = (origins.contiguous(), directions.contiguous(), distances.contiguous())
    color, opacity = grid.new_empty(len(origins), grid.shape[-1] - 1), grid.new_empty(len(origins))
    size = (len(origins), grid.shape[-1])
    launch(_kernels(grid.dtype).march, size, *rows_and_size(grid), *rays, color, opacity)
    return color, opacity


def backward(
    grid: Tensor,
    origins: Tensor,
    directions: Tensor,
    distances: Tensor,
    grad_color: Tensor,
    grad_opacity: Tensor,
) -> Tensor:
    kernels, (rows, *size), samples = _kernels(grid.dtype), rows_and_size(grid), distances.shape[1]
    grad_output = torch.cat([grad_opacity[:, None], grad_color], 1)
    count = max(1, SAMPLES_AT_ONCE // max(samples, 1))
    grad_grid = None
    for begin in range(0, len(origins) if samples else 0, count):
        chunk = slice(begin, begin + count)
        rays = (
            origins[chunk].contiguous(),
            directions[chunk].contiguous(),
            (distances[chunk] if len(distances) > 1 else distances).contiguous(),
        )
        chunk_grad, num_rays = grad_output[chunk].contiguous(), len(rays[0])
        grad_alpha, weight, transmittances = grid.new_empty(3, samples, num_rays)
        max_term = torch.zeros(1, dtype=torch.int64, device=grid.device)
        launch(
            kernels.weight_gradients, (samples, num_rays), rows, *size, *rays, chunk_grad, grad_alpha, weight
        )
        launch(kernels.backpropagate, num_rays, chunk_grad, grad_alpha, weight, transmittances, max_term)
        sums = torch.zeros(rows.shape, dtype=torch.int64, device=grid.device)
        bits = count_log2(num_rays * samples)
        threads = (-(-samples // SAMPLES_PER_THREAD), num_rays, grid.shape[-1])
        launch(kernels.scatter, threads, *size, *rays, chunk_grad, grad_alpha, weight, max_term, bits, sums)
        total = from_sums(sums, max_term, bits, grid.dtype)
        grad_grid = total if grad_grid is None else grad_grid + total
    return torch.zeros_like(grid) if grad_grid is None else grad_grid.view(grid.shape)


@per_precision("march_grid")
def _kernels(precision: Precision) -> SimpleNamespace:
    scalar, vec3 = precision.scalar, precision.vec3
    rows, vectors = wp.array2d(dtype=scalar), wp.array(dtype=vec3)
    corners = corner_functions(scalar)
    is_inside, base_of, fraction_of = corners.is_inside, corners.base_of, corners.fraction_of
    row_of, corner_weight = corners.row_of, corners.corner_weight
    totals_of = wp.types.vector(8, wp.int64)

    @wp.func
    def distance_of(distances: rows, ray: int, k: int):
        if distances.shape[0] == 1:
            return distances[0, k]
        return distances[ray, k]

    @precision.kernel
    def march(
        grid: rows,
        depth: int,
        height: int,
        width: int,
        origins: vectors,
        directions: vectors,
        distances: rows,
        color: rows,
        opacity: wp.array(dtype=scalar),
    ):
        ray, channel = wp.tid()
        origin, direction = origins[ray], directions[ray]
        transmittance, total = scalar(1.0), scalar(0.0)
        for k in range(distances.shape[1]):
            p = origin + distance_of(distances, ray, k) * direction
            if is_inside(p, depth, height, width):
                base = base_of(p)
                fraction = fraction_of(p, base)
                alpha, value = scalar(0.0), scalar(0.0)
                for corner in range(8):
                    row = row_of(base, corner, depth, height, width)
                    if row >= 0:
                        trilinear = corner_weight(fraction, corner)
                        alpha += trilinear * grid[row, 0]
                        value += trilinear * grid[row, channel]
                weight = transmittance * alpha
                total += wp.where(channel == 0, weight, weight * value)
                transmittance *= scalar(1.0) - alpha
        if channel == 0:
            opacity[ray] = total
        else:
            color[ray, channel - 1] = total

    @precision.kernel
    def weight_gradients(
        grid: rows,
        depth: int,
        height: int,
        width: int,
        origins: vectors,
        directions: vectors,
        distances: rows,
        grad_output: rows,
        grad_weights: rows,
        alphas: rows,
    ):
        """Fill the alpha of each sample, and the gradient of its weight."""
        k, ray = wp.tid()
        alpha, total = scalar(0.0), scalar(0.0)
        p = origins[ray] + distance_of(distances, ray, k) * directions[ray]
        if is_inside(p, depth, height, width):
            total = grad_output[ray, 0]
            base = base_of(p)
            fraction = fraction_of(p, base)
            for corner in range(8):
                row = row_of(base, corner, depth, height, width)
                if row >= 0:
                    trilinear = corner_weight(fraction, corner)
                    alpha += trilinear * grid[row, 0]
                    for channel in range(1, grid.shape[1]):
                        total += trilinear * grad_output[ray, channel] * grid[row, channel]
        grad_weights[k, ray] = total
        alphas[k, ray] = alpha

    @precision.kernel
    def backpropagate(
        grad_output: rows,
        grad_weights: rows,
        alphas: rows,
        transmittances: rows,
        max_term: wp.array(dtype=wp.int64),
    ):
        """Replace the gradients of weights with those of alphas, and alphas with weights."""
        ray = wp.tid()
        samples, transmittance, largest = grad_weights.shape[0], scalar(1.0), scalar(0.0)
        for channel in range(1, grad_output.shape[1]):
            largest += wp.abs(grad_output[ray, channel])
        for k in range(samples):
            transmittances[k, ray] = transmittance
            transmittance *= scalar(1.0) - alphas[k, ray]
        rest, max_bits = scalar(0.0), wp.int64(0)
        for i in range(samples):
            k = samples - 1 - i
            grad_weight, alpha_k, front = grad_weights[k, ray], alphas[k, ray], transmittances[k, ray]
            grad, weight = front * (grad_weight - rest), front * alpha_k
            rest = alpha_k * grad_weight + (scalar(1.0) - alpha_k) * rest
            grad_weights[k, ray] = grad
            alphas[k, ray] = weight
            max_bits = wp.max(max_bits, size_bits(wp.float64(grad)))
            max_bits = wp.max(max_bits, size_bits(wp.float64(weight * largest)))
        if max_bits > max_term[0]:
            wp.atomic_max(max_term, 0, max_bits)

    @wp.func
    def add_corner(
        base: wp.vec3i,
        corner: int,
        depth: int,
        height: int,
        width: int,
        channel: int,
        total: wp.int64,
        sums: wp.array2d(dtype=wp.int64),
    ):
        row = row_of(base, corner, depth, height, width)
        if row >= 0 and total != wp.int64(0):
            wp.atomic_add(sums, row, channel, total)

    def leave(axis: int) -> Any:
        """Make the function that adds the voxels on one side of a cell to the sums, as the cell moves along an axis."""

        @wp.func
        def leave_side(
            base: wp.vec3i,
            step: int,
            depth: int,
            height: int,
            width: int,
            channel: int,
            totals: totals_of,
            sums: wp.array2d(dtype=wp.int64),
        ):
            """Return the totals of the moved cell."""
            moved = totals_of(wp.int64(0))
            for corner in range(8):
                is_left = ((corner >> axis) & 1) == wp.where(step > 0, 0, 1)
                if is_left:
                    add_corner(base, corner, depth, height, width, channel, totals[corner], sums)
                    moved[corner] = totals[corner ^ (1 << axis)]
            return moved

        return leave_side

    leave_x, leave_y, leave_z = (leave(axis) for axis in range(3))

    @precision.kernel
    def scatter(
        depth: int,
        height: int,
        width: int,
        origins: vectors,
        directions: vectors,
        distances: rows,
        grad_output: rows,
        grad_alphas: rows,
        weights: rows,
        max_term: wp.array(dtype=wp.int64),
        bits: int,
        sums: wp.array2d(dtype=wp.int64),
    ):
        """Add the gradients of a part of a ray; those of the voxels around it are summed until it leaves them."""
        part, ray, channel = wp.tid()
        first, scale = part * SAMPLES_PER_THREAD, power_of_two(-unit_exponent(max_term[0], bits))
        totals, base = totals_of(wp.int64(0)), wp.vec3i(FAR, FAR, FAR)
        for k in range(first, wp.min(first + SAMPLES_PER_THREAD, weights.shape[0])):
            p = origins[ray] + distance_of(distances, ray, k) * directions[ray]
            grad = grad_alphas[k, ray]
            if channel > 0:
                grad = weights[k, ray] * grad_output[ray, channel]
            if grad != scalar(0.0) and is_inside(p, depth, height, width):
                cell = base_of(p)
                step = cell - base
                if wp.max(wp.abs(step)) > 1:
                    for corner in range(8):
                        add_corner(base, corner, depth, height, width, channel, totals[corner], sums)
                        totals[corner] = wp.int64(0)
                else:
                    if step[0] != 0:
                        totals = leave_x(base, step[0], depth, height, width, channel, totals, sums)
                    base[0] = cell[0]
                    if step[1] != 0:
                        totals = leave_y(base, step[1], depth, height, width, channel, totals, sums)
                    base[1] = cell[1]
                    if step[2] != 0:
                        totals = leave_z(base, step[2], depth, height, width, channel, totals, sums)
                for axis in range(3):
                    base[axis] = cell[axis]
                fraction, units = fraction_of(p, cell), scalar(wp.float64(grad) * scale)
                for corner in range(8):
                    totals[corner] += wp.int64(corner_weight(fraction, corner) * units)
        for corner in range(8):
            add_corner(base, corner, depth, height, width, channel, totals[corner], sums)

    return SimpleNamespace(
        march=march, weight_gradients=weight_gradients, backpropagate=backpropagate, scatter=scatter
    )
