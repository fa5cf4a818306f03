"""Ray marching through sparse voxels: one thread per ray, then one per channel of each sample.

Rays are traversed twice, to count samples and to record them. Colors, 27 coefficients at each of 8 corners, are
interpolated by one thread per channel of each sample. Gradients at the corners are accumulated in 64-bit fixed point,
so that they do not depend on the order of threads.
"""

from types import SimpleNamespace
from typing import NamedTuple

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._contraction_warp import contraction_functions
from unrender.kernels._fixed_point import from_sums
from unrender.kernels._warp import (
    Precision,
    count_log2,
    launch,
    per_precision,
    power_of_two,
    record_term,
    unit_exponent,
)
from unrender.kernels.march_voxels.rays import GridRays, Strides
from unrender.kernels.march_voxels.reference import MAX_OPTICAL_DEPTH
from unrender.kernels.march_voxels.table import VoxelTable


class Records(NamedTuple):
    """The samples of rays, packed ray by ray."""

    offsets: Tensor
    ray: Tensor
    voxel: Tensor
    distance: Tensor
    optical_depth: Tensor
    colors: Tensor


def forward(
    rays: GridRays,
    log_density: Tensor,
    harmonics: Tensor,
    table: VoxelTable,
    strides: Strides,
    keep_voxel_weights: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Records]:
    kernels, count = _kernels(log_density.dtype), len(rays.t_near)
    counts = torch.zeros(count, dtype=torch.int32, device=log_density.device)
    settings = (strides.step, strides.skip, strides.stop, strides.contracted)
    ends = [t.contiguous() for t in (rays.t_near, rays.t_far, rays.jitter)]
    arrays = [*_lines(rays), *ends, table.bricks, table.voxels, table.corners, log_density.contiguous()]
    launch(kernels.traverse, count, *arrays, *settings, False, counts, None, None, None, None, None)
    offsets = torch.cat([counts.new_zeros(1, dtype=torch.int64), counts.cumsum(0)])
    total = int(offsets[-1])
    distance, depth = log_density.new_empty(2, total)
    ray, voxel = counts.new_empty(2, total)
    launch(kernels.traverse, count, *arrays, *settings, True, counts, offsets, ray, voxel, distance, depth)
    colors, basis = log_density.new_empty(total, 3), rays.basis.contiguous()
    samples = (ray, voxel, distance)
    geometry = (*_lines(rays), strides.contracted, table.shape[0], table.corners, table.voxel_positions)
    launch(kernels.color, (total, 3), *samples, *geometry, basis, harmonics.contiguous(), colors)
    sums = log_density.new_empty(count, 5)
    voxel_weights = log_density.new_zeros(table.num_voxels if keep_voxel_weights else 0)
    as_bits = voxel_weights.view(torch.int64 if log_density.dtype == torch.float64 else torch.int32)
    launch(kernels.accumulate, count, offsets, voxel, distance, depth, colors, sums, as_bits)
    records = Records(offsets, ray, voxel, distance, depth, colors)
    return sums[:, :3].contiguous(), sums[:, 3].clone(), sums[:, 4].clone(), voxel_weights, records


def backward(
    rays: GridRays, table: VoxelTable, strides: Strides, records: Records, grad_outputs: Tensor
) -> tuple[Tensor, Tensor]:
    offsets, ray, voxel, distance, depth, colors = records
    total, basis, dtype = len(ray), rays.basis.contiguous(), distance.dtype
    kernels, by_sample = _kernels(dtype), distance.new_empty(total, 5)
    max_term = torch.zeros(2, dtype=torch.int64, device=distance.device)
    launch(
        kernels.backward, len(offsets) - 1, offsets, distance, depth, colors, basis, grad_outputs.contiguous(),
        by_sample, max_term[:1], max_term[1:],
    )  # fmt: skip
    width, bits = 3 * basis.shape[1], count_log2(total)
    sums = torch.zeros(table.num_corners, dtype=torch.int64, device=distance.device)
    color_sums = torch.zeros(table.num_corners, width, dtype=torch.int64, device=distance.device)
    geometry = (*_lines(rays), strides.contracted, table.shape[0], table.corners, table.voxel_positions)
    launch(
        kernels.scatter, (total, width + 1), ray, voxel, distance, *geometry, basis, by_sample,
        max_term[:1], max_term[1:], bits, sums, color_sums,
    )  # fmt: skip
    return from_sums(sums, max_term[:1], bits, dtype), from_sums(color_sums, max_term[1:], bits, dtype)


def _lines(rays: GridRays) -> tuple[Tensor, Tensor]:
    return rays.origins.contiguous(), rays.directions.contiguous()


@per_precision("march_voxels")
def _kernels(precision: Precision) -> SimpleNamespace:
    scalar, vec3 = precision.scalar, precision.vec3
    weight_bits = wp.int64 if scalar is wp.float64 else wp.int32
    row, rows, vectors = wp.array(dtype=scalar), wp.array2d(dtype=scalar), wp.array(dtype=vec3)
    numbers, number_rows = wp.array(dtype=wp.int32), wp.array2d(dtype=wp.int32)
    bounds, bricks_array, sums_array = (
        wp.array(dtype=wp.int64),
        wp.array3d(dtype=wp.int32),
        wp.array2d(dtype=wp.int64),
    )
    max_depth, largest_log = wp.static(float(MAX_OPTICAL_DEPTH)), 87.0

    contraction = contraction_functions(scalar)
    contract, contracted_step = contraction.contract, contraction.contracted_step

    @wp.func
    def locate(o: vec3, d: vec3, t: scalar, contracted: bool, size: int):
        """Return the position of a ray at distance t, in voxels."""
        p, two = o + t * d, scalar(2.0)
        if not contracted:
            return p
        return (contract(p) + vec3(two, two, two)) * (scalar(size) / scalar(4.0))

    @wp.func
    def distance_to_exit(p: scalar, v: scalar, brick: int, steps: int):
        """Return the distance to the end of the bricks that are known to be empty, along one axis."""
        if v == scalar(0.0):
            return scalar(1.0e30)
        end = brick - steps + 1
        if v > scalar(0.0):
            end = brick + steps
        return (scalar(4 * end) - p) / v

    @wp.func
    def corner_weight(fraction: vec3, q: int):
        """Return the trilinear weight of a corner; z changes fastest."""
        one = scalar(1.0)
        u = wp.where((q >> 2) == 1, fraction[0], one - fraction[0])
        v = wp.where(((q >> 1) & 1) == 1, fraction[1], one - fraction[1])
        w = wp.where((q & 1) == 1, fraction[2], one - fraction[2])
        return u * v * w

    @precision.kernel
    def traverse(
        origins: vectors,
        directions: vectors,
        t_near: row,
        t_far: row,
        jitter: row,
        bricks: bricks_array,
        voxels: number_rows,
        corners: number_rows,
        log_density: row,
        step: scalar,
        skip: scalar,
        stop: scalar,
        contracted: bool,
        writes: bool,
        counts: numbers,
        offsets: bounds,
        ray_of: numbers,
        voxel_of: numbers,
        distance: row,
        optical_depth: row,
    ):
        """Count the visible samples of each ray or, in a second launch, write them."""
        r = wp.tid()
        o, d, t_end, offset, size = origins[r], directions[r], t_far[r], jitter[r], 4 * bricks.shape[0]
        found, first, transmittance, t = int(0), int(0), scalar(1.0), scalar(t_near[r])
        if writes:
            first = int(offsets[r])
        while t < t_end and transmittance > stop:
            length = step
            if contracted:
                length = contracted_step(o, d, t, step)
            t_sample = t + offset * length
            p = locate(o, d, t_sample, contracted, size)
            i = wp.clamp(int(p[0]), 0, 4 * bricks.shape[0] - 1)
            j = wp.clamp(int(p[1]), 0, 4 * bricks.shape[1] - 1)
            k = wp.clamp(int(p[2]), 0, 4 * bricks.shape[2] - 1)
            brick = bricks[i >> 2, j >> 2, k >> 2]
            if brick < 0:
                steps = scalar(1.0)
                if not contracted:
                    exit_distance = wp.min(
                        distance_to_exit(p[0], d[0], i >> 2, -brick),
                        wp.min(
                            distance_to_exit(p[1], d[1], j >> 2, -brick),
                            distance_to_exit(p[2], d[2], k >> 2, -brick),
                        ),
                    )
                    steps = wp.floor(wp.max(exit_distance, scalar(0.0)) / step) + scalar(1.0)
                t += steps * length
            else:
                t += length
                v = voxels[brick, ((i & 3) << 4) | ((j & 3) << 2) | (k & 3)]
                if v >= 0:
                    fraction = p - vec3(scalar(i), scalar(j), scalar(k))
                    value = scalar(0.0)
                    for q in range(8):
                        value += corner_weight(fraction, q) * log_density[corners[v, q]]
                    value = wp.where(value > scalar(largest_log), scalar(largest_log), value)
                    depth = length * wp.exp(value)
                    depth = wp.where(depth > scalar(max_depth), scalar(max_depth), depth)
                    through = wp.exp(-depth)
                    if (
                        not transmittance * (scalar(1.0) - through) < skip
                    ):  # NaN is kept, so that it is noticed
                        transmittance *= through
                        if writes:
                            ray_of[first + found] = r
                            voxel_of[first + found] = v
                            distance[first + found] = t_sample
                            optical_depth[first + found] = depth
                        found += 1
        if not writes:
            counts[r] = found

    @wp.func
    def fraction_of(
        o: vec3, d: vec3, t: scalar, contracted: bool, size: int, voxel_positions: number_rows, v: int
    ):
        p = locate(o, d, t, contracted, size)
        return p - vec3(
            scalar(voxel_positions[v, 0]), scalar(voxel_positions[v, 1]), scalar(voxel_positions[v, 2])
        )

    @precision.kernel
    def color(
        ray_of: numbers,
        voxel_of: numbers,
        distance: row,
        origins: vectors,
        directions: vectors,
        contracted: bool,
        size: int,
        corners: number_rows,
        voxel_positions: number_rows,
        basis: rows,
        harmonics: rows,
        colors: rows,
    ):
        s, channel = wp.tid()
        r, v, bands = ray_of[s], voxel_of[s], basis.shape[1]
        fraction = fraction_of(origins[r], directions[r], distance[s], contracted, size, voxel_positions, v)
        total = scalar(0.5)
        for q in range(8):
            corner = corners[v, q]
            mixed = scalar(0.0)
            for f in range(bands):
                mixed += harmonics[corner, channel * bands + f] * basis[r, f]
            total += corner_weight(fraction, q) * mixed
        colors[s, channel] = wp.where(total < scalar(0.0), scalar(0.0), total)

    @precision.kernel
    def accumulate(
        offsets: bounds,
        voxel_of: numbers,
        distance: row,
        optical_depth: row,
        colors: rows,
        sums: rows,
        voxel_weights: wp.array(dtype=weight_bits),
    ):
        r = wp.tid()
        transmittance, rgb, weighted_distance = scalar(1.0), vec3(), scalar(0.0)
        for s in range(int(offsets[r]), int(offsets[r + 1])):
            through = wp.exp(-optical_depth[s])
            weight = transmittance * (scalar(1.0) - through)
            rgb += weight * vec3(colors[s, 0], colors[s, 1], colors[s, 2])
            weighted_distance += weight * distance[s]
            transmittance *= through
            if voxel_weights.shape[0] > 0:
                bits = wp.cast(weight, weight_bits)  # the bits of positive numbers have their order
                if bits > voxel_weights[voxel_of[s]]:
                    wp.atomic_max(voxel_weights, voxel_of[s], bits)
        sums[r, 0] = rgb[0]
        sums[r, 1] = rgb[1]
        sums[r, 2] = rgb[2]
        sums[r, 3] = scalar(1.0) - transmittance
        sums[r, 4] = weighted_distance

    @precision.kernel
    def backward(
        offsets: bounds,
        distance: row,
        optical_depth: row,
        colors: rows,
        basis: rows,
        grad_outputs: rows,
        by_sample: rows,
        max_term: bounds,
        max_color_term: bounds,
    ):
        """Fill the gradients of the color and the log density of each sample, and its weight."""
        r = wp.tid()
        begin, end = int(offsets[r]), int(offsets[r + 1])
        grad_color = vec3(grad_outputs[r, 0], grad_outputs[r, 1], grad_outputs[r, 2])
        grad_opacity, grad_distance, basis_norm = grad_outputs[r, 3], grad_outputs[r, 4], scalar(0.0)
        for f in range(basis.shape[1]):
            basis_norm += wp.abs(basis[r, f])
        transmittance = scalar(1.0)
        for s in range(begin, end):
            by_sample[s, 4] = transmittance
            transmittance *= wp.exp(-optical_depth[s])
        rest = scalar(0.0)
        for i in range(end - begin):
            s = end - 1 - i
            depth = optical_depth[s]
            entering = by_sample[s, 4]
            through = wp.exp(-depth)
            weight = entering * (scalar(1.0) - through)
            rgb = vec3(colors[s, 0], colors[s, 1], colors[s, 2])
            value = wp.dot(grad_color, rgb) + grad_opacity + grad_distance * distance[s]
            grad_log = wp.where(
                depth >= scalar(max_depth), scalar(0.0), depth * entering * through * (value - rest)
            )
            rest = value * (scalar(1.0) - through) + through * rest
            by_sample[s, 3] = grad_log
            by_sample[s, 4] = weight
            record_term(wp.float64(grad_log), max_term)
            for channel in range(3):
                grad_channel = wp.where(
                    rgb[channel] <= scalar(0.0), scalar(0.0), weight * grad_color[channel]
                )
                by_sample[s, channel] = grad_channel
                record_term(wp.float64(grad_channel * basis_norm), max_color_term)

    @precision.kernel
    def scatter(
        ray_of: numbers,
        voxel_of: numbers,
        distance: row,
        origins: vectors,
        directions: vectors,
        contracted: bool,
        size: int,
        corners: number_rows,
        voxel_positions: number_rows,
        basis: rows,
        by_sample: rows,
        max_term: bounds,
        max_color_term: bounds,
        bits: int,
        sums: bounds,
        color_sums: sums_array,
    ):
        """Accumulate the gradients of the coefficients at the corners and, last, those of the log densities."""
        s, f = wp.tid()
        r, v, bands = ray_of[s], voxel_of[s], basis.shape[1]
        is_color = f < 3 * bands
        grad, max_magnitude = scalar(by_sample[s, 3]), wp.int64(max_term[0])
        if is_color:
            grad = by_sample[s, f // bands] * basis[r, f % bands]
            max_magnitude = max_color_term[0]
        if grad != scalar(0.0):
            units = scalar(wp.float64(grad) * power_of_two(-unit_exponent(max_magnitude, bits)))
            fraction = fraction_of(
                origins[r], directions[r], distance[s], contracted, size, voxel_positions, v
            )
            for q in range(8):
                amount = wp.int64(corner_weight(fraction, q) * units)
                if is_color:
                    wp.atomic_add(color_sums, corners[v, q], f, amount)
                else:
                    wp.atomic_add(sums, corners[v, q], amount)

    return SimpleNamespace(
        traverse=traverse, color=color, accumulate=accumulate, backward=backward, scatter=scatter
    )
