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

from unrender.kernels._fixed_point import from_sums
from unrender.kernels._warp import (
    Precision,
    count_log2,
    launch,
    note_term,
    per_precision,
    power_of_two,
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
    kernels, count = _kernels(log_density.dtype), len(rays.near)
    counts = torch.zeros(count, dtype=torch.int32, device=log_density.device)
    settings = (strides.step, strides.skip, strides.stop, strides.contracted)
    ends = [t.contiguous() for t in (rays.near, rays.far, rays.jitter)]
    arrays = [*_lines(rays), *ends, table.bricks, table.voxels, table.corners, log_density.contiguous()]
    launch(kernels.walk, count, *arrays, *settings, False, counts, None, None, None, None, None)
    offsets = torch.cat([counts.new_zeros(1, dtype=torch.int64), counts.cumsum(0)])
    total = int(offsets[-1])
    distance, depth = log_density.new_empty(2, total)
    ray, voxel = counts.new_empty(2, total)
    launch(kernels.walk, count, *arrays, *settings, True, counts, offsets, ray, voxel, distance, depth)
    colors, basis = log_density.new_empty(total, 3), rays.basis.contiguous()
    samples = (ray, voxel, distance)
    place = (*_lines(rays), strides.contracted, table.shape[0], table.corners, table.voxel_positions)
    launch(kernels.color, (total, 3), *samples, *place, basis, harmonics.contiguous(), colors)
    sums = log_density.new_empty(count, 5)
    voxel_weights = log_density.new_zeros(table.num_voxels if keep_voxel_weights else 0)
    as_bits = voxel_weights.view(torch.int64 if log_density.dtype == torch.float64 else torch.int32)
    launch(kernels.add_up, count, offsets, voxel, distance, depth, colors, sums, as_bits)
    records = Records(offsets, ray, voxel, distance, depth, colors)
    return sums[:, :3].contiguous(), sums[:, 3].clone(), sums[:, 4].clone(), voxel_weights, records


def backward(
    rays: GridRays, table: VoxelTable, strides: Strides, records: Records, cotangents: Tensor
) -> tuple[Tensor, Tensor]:
    offsets, ray, voxel, distance, depth, colors = records
    total, basis, dtype = len(ray), rays.basis.contiguous(), distance.dtype
    kernels, by_sample = _kernels(dtype), distance.new_empty(total, 5)
    greatest = torch.zeros(2, dtype=torch.int64, device=distance.device)
    launch(
        kernels.go_back, len(offsets) - 1, offsets, distance, depth, colors, basis, cotangents.contiguous(), by_sample,
        greatest[:1], greatest[1:],
    )  # fmt: skip
    width, bits = 3 * basis.shape[1], count_log2(total)
    sums = torch.zeros(table.num_corners, dtype=torch.int64, device=distance.device)
    color_sums = torch.zeros(table.num_corners, width, dtype=torch.int64, device=distance.device)
    place = (*_lines(rays), strides.contracted, table.shape[0], table.corners, table.voxel_positions)
    launch(
        kernels.scatter, (total, width + 1), ray, voxel, distance, *place, basis, by_sample, greatest[:1], greatest[1:],
        bits, sums, color_sums,
    )  # fmt: skip
    return from_sums(sums, greatest[:1], bits, dtype), from_sums(color_sums, greatest[1:], bits, dtype)


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
    deepest, largest_log = wp.static(float(MAX_OPTICAL_DEPTH)), 87.0

    @wp.func
    def locate(o: vec3, d: vec3, t: scalar, contracted: bool, size: int):
        """Return where a ray is at distance t, in voxels."""
        p, one, two = o + t * d, scalar(1.0), scalar(2.0)
        if not contracted:
            return p
        r = wp.max(wp.abs(p[0]), wp.max(wp.abs(p[1]), wp.abs(p[2])))
        if r > one:
            p = p * ((two - one / r) / r)
        return (p + vec3(two, two, two)) * (scalar(size) / scalar(4.0))

    @wp.func
    def stride(o: vec3, d: vec3, t: scalar, step: scalar):
        """Return how far to go in contracted space, so that the step there is as long as within the inner cube."""
        p, one, two = o + t * d, scalar(1.0), scalar(2.0)
        r = wp.max(wp.abs(p[0]), wp.max(wp.abs(p[1]), wp.abs(p[2])))
        if r <= one:
            return step
        along = d[2] * wp.sign(p[2])
        if r == wp.abs(p[0]):
            along = d[0] * wp.sign(p[0])
        elif r == wp.abs(p[1]):
            along = d[1] * wp.sign(p[1])
        velocity = d * ((two - one / r) / r) + p * (along * (two / r - two) / (r * r))
        length = wp.length(d)
        return wp.min(step * length / wp.length(velocity), r / (scalar(4.0) * length))

    @wp.func
    def leave(p: scalar, v: scalar, brick: int, steps: int):
        """Return how far it is, along one axis, to the end of the bricks that are known to be empty."""
        if v == scalar(0.0):
            return scalar(1.0e30)
        end = brick - steps + 1
        if v > scalar(0.0):
            end = brick + steps
        return (scalar(4 * end) - p) / v

    @wp.func
    def share(part: vec3, q: int):
        """Return the weight of a corner; z changes fastest."""
        one = scalar(1.0)
        u = wp.where((q >> 2) == 1, part[0], one - part[0])
        v = wp.where(((q >> 1) & 1) == 1, part[1], one - part[1])
        w = wp.where((q & 1) == 1, part[2], one - part[2])
        return u * v * w

    @precision.kernel
    def walk(
        origins: vectors,
        directions: vectors,
        near: row,
        far: row,
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
        """Fill how many samples count on each ray, or the samples."""
        r = wp.tid()
        o, d, until, offset, size = origins[r], directions[r], far[r], jitter[r], 4 * bricks.shape[0]
        found, first, left, t = int(0), int(0), scalar(1.0), scalar(near[r])
        if writes:
            first = int(offsets[r])
        while t < until and left > stop:
            length = step
            if contracted:
                length = stride(o, d, t, step)
            here = t + offset * length
            p = locate(o, d, here, contracted, size)
            i = wp.clamp(int(p[0]), 0, 4 * bricks.shape[0] - 1)
            j = wp.clamp(int(p[1]), 0, 4 * bricks.shape[1] - 1)
            k = wp.clamp(int(p[2]), 0, 4 * bricks.shape[2] - 1)
            brick = bricks[i >> 2, j >> 2, k >> 2]
            if brick < 0:
                steps = scalar(1.0)
                if not contracted:
                    out = wp.min(
                        leave(p[0], d[0], i >> 2, -brick),
                        wp.min(leave(p[1], d[1], j >> 2, -brick), leave(p[2], d[2], k >> 2, -brick)),
                    )
                    steps = wp.floor(wp.max(out, scalar(0.0)) / step) + scalar(1.0)
                t += steps * length
            else:
                t += length
                v = voxels[brick, ((i & 3) << 4) | ((j & 3) << 2) | (k & 3)]
                if v >= 0:
                    part = p - vec3(scalar(i), scalar(j), scalar(k))
                    value = scalar(0.0)
                    for q in range(8):
                        value += share(part, q) * log_density[corners[v, q]]
                    value = wp.where(value > scalar(largest_log), scalar(largest_log), value)
                    depth = length * wp.exp(value)
                    depth = wp.where(depth > scalar(deepest), scalar(deepest), depth)
                    through = wp.exp(-depth)
                    if not left * (scalar(1.0) - through) < skip:  # NaN counts, and is seen
                        left *= through
                        if writes:
                            ray_of[first + found] = r
                            voxel_of[first + found] = v
                            distance[first + found] = here
                            optical_depth[first + found] = depth
                        found += 1
        if not writes:
            counts[r] = found

    @wp.func
    def part_of(o: vec3, d: vec3, t: scalar, contracted: bool, size: int, places: number_rows, v: int):
        p = locate(o, d, t, contracted, size)
        return p - vec3(scalar(places[v, 0]), scalar(places[v, 1]), scalar(places[v, 2]))

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
        places: number_rows,
        basis: rows,
        harmonics: rows,
        colors: rows,
    ):
        s, channel = wp.tid()
        r, v, bands = ray_of[s], voxel_of[s], basis.shape[1]
        part = part_of(origins[r], directions[r], distance[s], contracted, size, places, v)
        total = scalar(0.5)
        for q in range(8):
            corner = corners[v, q]
            mixed = scalar(0.0)
            for f in range(bands):
                mixed += harmonics[corner, channel * bands + f] * basis[r, f]
            total += share(part, q) * mixed
        colors[s, channel] = wp.where(total < scalar(0.0), scalar(0.0), total)

    @precision.kernel
    def add_up(
        offsets: bounds,
        voxel_of: numbers,
        distance: row,
        optical_depth: row,
        colors: rows,
        sums: rows,
        voxel_weights: wp.array(dtype=weight_bits),
    ):
        r = wp.tid()
        left, seen, far = scalar(1.0), vec3(), scalar(0.0)
        for s in range(int(offsets[r]), int(offsets[r + 1])):
            through = wp.exp(-optical_depth[s])
            weight = left * (scalar(1.0) - through)
            seen += weight * vec3(colors[s, 0], colors[s, 1], colors[s, 2])
            far += weight * distance[s]
            left *= through
            if voxel_weights.shape[0] > 0:
                bits = wp.cast(weight, weight_bits)  # positive numbers have the order of their bits
                if bits > voxel_weights[voxel_of[s]]:
                    wp.atomic_max(voxel_weights, voxel_of[s], bits)
        sums[r, 0] = seen[0]
        sums[r, 1] = seen[1]
        sums[r, 2] = seen[2]
        sums[r, 3] = scalar(1.0) - left
        sums[r, 4] = far

    @precision.kernel
    def go_back(
        offsets: bounds,
        distance: row,
        optical_depth: row,
        colors: rows,
        basis: rows,
        cotangents: rows,
        by_sample: rows,
        greatest: bounds,
        greatest_color: bounds,
    ):
        """Fill of each sample the slopes of its color and of its log density, and its weight."""
        r = wp.tid()
        begin, end = int(offsets[r]), int(offsets[r + 1])
        slope = vec3(cotangents[r, 0], cotangents[r, 1], cotangents[r, 2])
        opaque, far, reach = cotangents[r, 3], cotangents[r, 4], scalar(0.0)
        for f in range(basis.shape[1]):
            reach += wp.abs(basis[r, f])
        left = scalar(1.0)
        for s in range(begin, end):
            by_sample[s, 4] = left
            left *= wp.exp(-optical_depth[s])
        rest = scalar(0.0)
        for i in range(end - begin):
            s = end - 1 - i
            depth = optical_depth[s]
            light = by_sample[s, 4]
            through = wp.exp(-depth)
            weight = light * (scalar(1.0) - through)
            seen = vec3(colors[s, 0], colors[s, 1], colors[s, 2])
            value = wp.dot(slope, seen) + opaque + far * distance[s]
            of_log = wp.where(depth >= scalar(deepest), scalar(0.0), depth * light * through * (value - rest))
            rest = value * (scalar(1.0) - through) + through * rest
            by_sample[s, 3] = of_log
            by_sample[s, 4] = weight
            note_term(wp.float64(of_log), greatest)
            for channel in range(3):
                of_color = wp.where(seen[channel] <= scalar(0.0), scalar(0.0), weight * slope[channel])
                by_sample[s, channel] = of_color
                note_term(wp.float64(of_color * reach), greatest_color)

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
        places: number_rows,
        basis: rows,
        by_sample: rows,
        greatest: bounds,
        greatest_color: bounds,
        bits: int,
        sums: bounds,
        color_sums: sums_array,
    ):
        """Add to the corners: the slopes of the coefficients, and last those of the log densities."""
        s, f = wp.tid()
        r, v, bands = ray_of[s], voxel_of[s], basis.shape[1]
        is_color = f < 3 * bands
        slope, most = scalar(by_sample[s, 3]), wp.int64(greatest[0])
        if is_color:
            slope = by_sample[s, f // bands] * basis[r, f % bands]
            most = greatest_color[0]
        if slope != scalar(0.0):
            units = scalar(wp.float64(slope) * power_of_two(-unit_exponent(most, bits)))
            part = part_of(origins[r], directions[r], distance[s], contracted, size, places, v)
            for q in range(8):
                amount = wp.int64(share(part, q) * units)
                if is_color:
                    wp.atomic_add(color_sums, corners[v, q], f, amount)
                else:
                    wp.atomic_add(sums, corners[v, q], amount)

    return SimpleNamespace(walk=walk, color=color, add_up=add_up, go_back=go_back, scatter=scatter)
