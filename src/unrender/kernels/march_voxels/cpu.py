"""Ray marching through sparse voxels: densities ray by ray, then colors brick by brick, in the order of memory.

Rays are traversed in parallel, and their visible samples recorded. The samples are then sorted by brick, so that the
colors, 27 coefficients at each of 8 corners, are read from cache. Gradients are accumulated by planes of bricks:
first all even planes in parallel, then all odd ones. Only adjacent planes have common corners, so no two threads write
to the same.
"""

from typing import NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unrender.kernels._batch import allocate, array
from unrender.kernels._contraction_cpu import contract, contracted_step
from unrender.kernels._dispatch import cpu_threads
from unrender.kernels._llvm.bits import count_ones
from unrender.kernels._llvm.exponential import exp
from unrender.kernels.march_voxels.rays import GridRays, Strides
from unrender.kernels.march_voxels.reference import MAX_OPTICAL_DEPTH
from unrender.kernels.march_voxels.sorting import (
    RAYS,
    count_by_brick,
    max_voxel_weights,
    pack,
    prefix_sum,
    sort_by_brick,
)
from unrender.kernels.march_voxels.table import VoxelTable

BATCH = 8
"""Samples of a ray whose densities are loaded before any of them is used, so that many loads are in flight."""
LANES = 8
"""Exponentials computed at once."""
LARGEST = 87.0
"""Limit of log densities: beyond ± this, voxels are opaque or empty in floating point."""
PARTS = 16
"""Chunks of rays for sorting."""
RELAXED = {"contract", "reassoc", "nsz", "arcp", "afn"}
PROBED = 16
"""Stride of the rays whose samples are counted first, to estimate the memory that all samples need."""


class Records(NamedTuple):
    """The samples of rays, in chunks of `RAYS` rays with spare capacity at the end of each."""

    first: Tensor
    used: Tensor
    order: Tensor
    ray: Tensor
    plane_starts: Tensor
    distance: Tensor
    voxel: Tensor
    optical_depth: Tensor
    one_minus_alpha: Tensor
    """1 − α of each sample."""
    colors: Tensor


def forward(
    rays: GridRays,
    log_density: Tensor,
    harmonics: Tensor,
    table: VoxelTable,
    strides: Strides,
    keep_voxel_weights: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Records]:
    corners = table.corners.numpy()
    with cpu_threads(len(rays.t_near) * 8):
        samples = _traverse_rays(rays, table, array(log_density), strides, with_lengths=False)
        records = _sorted(samples, table)
        first, used, order, ray, planes, distance, voxel, _, one_minus_alpha, colors = (
            t.numpy() for t in records
        )
        _color(
            array(rays.origins), array(rays.directions), array(rays.basis), order, ray, distance, voxel, corners,
            table.voxel_positions.numpy(), array(harmonics), colors, strides.contracted, table.shape[0],
        )  # fmt: skip
        sums = log_density.new_empty(len(rays.t_near), 5)
        weights = np.empty(len(voxel) if keep_voxel_weights else 0, colors.dtype)
        _accumulate(first, used, distance, one_minus_alpha, colors, sums.numpy(), weights)
        voxel_weights = log_density.new_zeros(table.num_voxels if keep_voxel_weights else 0)
        if keep_voxel_weights:
            max_voxel_weights(planes, order, voxel, weights, voxel_weights.numpy())
    return sums[:, :3], sums[:, 3], sums[:, 4], voxel_weights, records


def backward(
    rays: GridRays, table: VoxelTable, strides: Strides, records: Records, grad_outputs: Tensor
) -> tuple[Tensor, Tensor]:
    scalar = records.colors.numpy().dtype
    gradient = np.zeros(table.num_corners, scalar)
    grad_harmonics = np.zeros((table.num_corners, 3 * rays.basis.shape[1]), scalar)
    by_sample = np.empty((len(records.voxel), 5), scalar)
    first, used, order, ray, planes, distance, voxel, optical_depth, one_minus_alpha, colors = (
        t.numpy() for t in records
    )
    with cpu_threads(len(rays.t_near) * 8):
        _backward_of_rays(
            first, used, distance, optical_depth, one_minus_alpha, colors, array(grad_outputs), by_sample
        )
        for parity in (0, 1):
            _scatter(
                array(rays.origins), array(rays.directions), array(rays.basis), order, ray, planes, distance, voxel,
                table.corners.numpy(), table.voxel_positions.numpy(), by_sample, parity, strides.contracted,
                table.shape[0], gradient, grad_harmonics,
            )  # fmt: skip
    return torch.from_numpy(gradient), torch.from_numpy(grad_harmonics)


def visible_samples(
    rays: GridRays, log_density: Tensor, table: VoxelTable, strides: Strides
) -> tuple[Tensor, Tensor, Tensor]:
    with cpu_threads(len(rays.t_near) * 8):
        samples = _traverse_rays(rays, table, array(log_density), strides, with_lengths=True)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(samples.used)])
        packed = [allocate(log_density, int(offsets[-1])) for _ in range(2)]
        for source, target in zip((samples.distance, samples.length), packed, strict=True):
            pack(source, samples.first, offsets, target.numpy())
    return packed[0], packed[1], torch.from_numpy(offsets)


class _Samples(NamedTuple):
    """Samples of all rays: those of ray r are first[r] to first[r] + used[r]."""

    first: NDArray[np.int64]
    used: NDArray[np.int32]
    distance: NDArray[np.floating]
    voxel: NDArray[np.int32]
    optical_depth: NDArray[np.floating]
    one_minus_alpha: NDArray[np.floating]
    brick: NDArray[np.int32]
    length: NDArray[np.floating]


def _traverse_rays(
    rays: GridRays,
    table: VoxelTable,
    log_density: NDArray[np.floating],
    strides: Strides,
    *,
    with_lengths: bool,
) -> _Samples:
    """Traverse all rays; the memory that their samples need is estimated from every 16th of them.

    Neighboring rays have about as many samples. If the estimate is too low, all rays are traversed again.
    """
    arrays = [array(t) for t in (rays.origins, rays.directions, rays.t_near, rays.t_far, rays.jitter)]
    limits = [log_density.dtype.type(value) for value in (strides.step, strides.skip, strides.stop)]
    bricks, voxels = table.bricks.numpy(), table.voxels.numpy()
    raw = np.empty((table.num_voxels, 8), log_density.dtype)
    exists, visible = np.empty((2, len(voxels)), np.uint64)
    lowest = np.empty(len(voxels), np.int32)
    _gather(
        table.corners.numpy(), voxels, log_density, _min_log_density(strides), raw, exists, visible, lowest
    )
    known = (bricks, exists, visible, lowest, raw, *limits, strides.contracted)

    def traverse(rays: list[NDArray[np.floating]], capacity: int) -> tuple[_Samples, int]:
        count, chunks = len(rays[0]), (len(rays[0]) + RAYS - 1) // RAYS
        first, used, needed = np.empty(count, np.int64), np.empty(count, np.int32), np.zeros(chunks, np.int64)
        distance, optical_depth, one_minus_alpha = np.empty((3, chunks * capacity), raw.dtype)
        voxel, brick = np.empty((2, chunks * capacity), np.int32)
        length = np.empty(chunks * capacity if with_lengths else 0, raw.dtype)
        _traverse(
            *rays,
            *known,
            capacity,
            first,
            used,
            needed,
            distance,
            voxel,
            optical_depth,
            one_minus_alpha,
            brick,
            length,
        )
        samples = _Samples(first, used, distance, voxel, optical_depth, one_minus_alpha, brick, length)
        return samples, int(needed.max(initial=0))

    used = traverse([np.ascontiguousarray(values[::PROBED]) for values in arrays], 0)[0].used
    groups = np.add.reduceat(used, np.arange(0, len(used), RAYS // PROBED)) if len(used) else used
    capacity = int(groups.max(initial=0)) * PROBED * 5 // 4 + RAYS
    while True:
        samples, needed = traverse(arrays, capacity)
        if needed <= capacity:
            return samples
        capacity = needed


def _sorted(samples: _Samples, table: VoxelTable) -> Records:
    """Sort samples by brick."""
    first, used, distance, voxel, optical_depth, one_minus_alpha, brick, _ = samples
    counts = np.zeros((PARTS, len(table.voxels)), np.int64)
    count_by_brick(first, used, brick, counts)
    starts = np.zeros(len(table.voxels) + 1, np.int64)
    prefix_sum(counts, starts)
    order, ray = np.empty(starts[-1], np.int64), np.empty(starts[-1], np.int32)
    sort_by_brick(first, used, brick, counts, order, ray)
    per_plane = (table.bricks.numpy() >= 0).sum((1, 2))
    planes = starts[np.concatenate([[0], np.cumsum(per_plane)])]
    colors = np.empty((len(voxel), 3), distance.dtype)  # filled later
    found = (first, used, order, ray, planes, distance, voxel, optical_depth, one_minus_alpha, colors)
    return Records._make(map(torch.from_numpy, found))


def _min_log_density(strides: Strides) -> float:
    """Return the log density below which the weight of a sample is below `skip`."""
    if strides.skip == 0 or strides.contracted:
        return -np.inf
    return float(np.log(-np.log1p(-strides.skip) / strides.step)) if strides.skip < 1 else np.inf


@numba.njit(cache=True, parallel=True)
def _gather(corners, voxels, values, min_log_density, gathered, exists, visible, lowest):
    """Gather log densities by voxel; fill bit masks of the voxels of each brick that exist, and that may be visible."""
    for b in numba.prange(voxels.shape[0]):
        exists_here, visible_here, number = np.uint64(0), np.uint64(0), np.int32(-1)
        for p in range(64):
            v = voxels[b, p]
            if v < 0:
                continue
            number = v if number < 0 else number
            transparent = True
            for q in range(8):
                value = values[corners[v, q]]
                gathered[v, q] = value
                transparent &= value < min_log_density
            exists_here |= np.uint64(1) << np.uint64(p)
            if not transparent:
                visible_here |= np.uint64(1) << np.uint64(p)
        exists[b], visible[b], lowest[b] = exists_here, visible_here, number


@numba.njit(inline="always", fastmath=RELAXED, error_model="numpy")
def locate(ox, oy, oz, dx, dy, dz, t, contracted, size):
    """Return the position of a ray at distance t, in voxels."""
    x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
    if contracted:
        x, y, z = contract(x, y, z)
        size = size / 4
        x, y, z = (x + 2) * size, (y + 2) * size, (z + 2) * size
    return x, y, z


@numba.njit(inline="always", error_model="numpy")
def distance_to_exit(p, v, brick, steps):
    """Return the distance to the end of the bricks that are known to be empty, along one axis."""
    if v == 0:
        return p * 0 + np.inf
    return ((brick + steps if v > 0 else brick - steps + 1) * 4 - p) / v


@numba.njit(inline="always", fastmath=RELAXED, error_model="numpy")
def _interpolate(corners, fx, fy, fz):
    gz = 1 - fz
    low, high = corners[0] * gz + corners[1] * fz, corners[2] * gz + corners[3] * fz
    front = low + fy * (high - low)
    low, high = corners[4] * gz + corners[5] * fz, corners[6] * gz + corners[7] * fz
    return front + fx * (low + fy * (high - low) - front)


@numba.njit(cache=True, parallel=True, fastmath=RELAXED, error_model="numpy")
def _traverse(
    origins, directions, t_near, t_far, jitter, bricks, exists, visible, lowest, raw, step, skip, stop, contracted,
    capacity, first, used, needed, distance, voxel, optical_depth, one_minus_alpha, brick, lengths_of,
):  # fmt: skip
    num_rays = origins.shape[0]
    real = origins.dtype.type
    zero, one, max_depth, largest = real(0), real(1), real(MAX_OPTICAL_DEPTH), real(LARGEST)
    last_x, last_y, last_z = (
        np.int32(4 * bricks.shape[0] - 1), np.int32(4 * bricks.shape[1] - 1), np.int32(4 * bricks.shape[2] - 1)
    )  # fmt: skip
    size = real(4 * bricks.shape[0])
    for c in numba.prange((num_rays + RAYS - 1) // RAYS):
        s, end = c * capacity, (c + 1) * capacity
        at, within = np.zeros(BATCH, origins.dtype), np.zeros((BATCH, 3), origins.dtype)
        lengths, depths, through = np.zeros((3, BATCH), origins.dtype)
        voxels, sample_bricks = np.zeros((2, BATCH), np.int32)
        for r in range(c * RAYS, min(num_rays, (c + 1) * RAYS)):
            ox, oy, oz = origins[r, 0], origins[r, 1], origins[r, 2]
            dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
            first[r] = s
            transmittance, t, t_end, offset = one, t_near[r], t_far[r], jitter[r]
            while t < t_end and transmittance > stop:
                n = 0
                while t < t_end and n < BATCH:
                    length = contracted_step(ox, oy, oz, dx, dy, dz, t, step) if contracted else step
                    t_sample = t + offset * length
                    x, y, z = locate(ox, oy, oz, dx, dy, dz, t_sample, contracted, size)
                    i = min(max(np.int32(x), np.int32(0)), last_x)
                    j = min(max(np.int32(y), np.int32(0)), last_y)
                    k = min(max(np.int32(z), np.int32(0)), last_z)
                    b = bricks[i >> 2, j >> 2, k >> 2]
                    visible_here = visible[b] if b >= 0 else np.uint64(0)
                    if visible_here == 0:
                        if n > 0:  # the ray may end here
                            break
                        steps, empty = one, max(-b, 1)
                        if not contracted:
                            out = min(
                                distance_to_exit(x, dx, i >> 2, empty),
                                distance_to_exit(y, dy, j >> 2, empty),
                                distance_to_exit(z, dz, k >> 2, empty),
                            )
                            steps = real(np.floor(max(out, zero) / step)) + one  # rounding: `out` may be < 0
                        t += steps * length
                        continue
                    t += length
                    bit = np.uint64(1) << np.uint64(((i & 3) << 4) | ((j & 3) << 2) | (k & 3))
                    at[n], lengths[n], sample_bricks[n] = t_sample, length, b
                    voxels[n] = lowest[b] + np.int32(count_ones(exists[b] & (bit - np.uint64(1))))
                    within[n, 0], within[n, 1], within[n, 2] = x - real(i), y - real(j), z - real(k)
                    n += int((visible_here & bit) != 0)  # without a branch
                for m in range(n):
                    value = _interpolate(raw[voxels[m]], within[m, 0], within[m, 1], within[m, 2])
                    value = largest if value > largest else value
                    depths[m] = -largest if value < -largest else value
                for m in range((n + LANES - 1) // LANES * LANES):  # whole vectors
                    depths[m] = min(lengths[m] * exp(depths[m]), max_depth)
                    through[m] = exp(-depths[m])
                for m in range(n):
                    if transmittance * (one - through[m]) < skip or not transmittance > stop:
                        continue
                    transmittance *= through[m]
                    if s < end:
                        distance[s], voxel[s], brick[s] = at[m], voxels[m], sample_bricks[m]
                        optical_depth[s], one_minus_alpha[s] = depths[m], through[m]
                        if len(lengths_of) > 0:
                            lengths_of[s] = lengths[m]
                    s += 1
            used[r] = s - first[r]
        needed[c] = s - c * capacity


@numba.njit(inline="always", fastmath=RELAXED, error_model="numpy")
def _corner_weights(origins, directions, ray, t, low, contracted, size, weights):
    """Fill the trilinear weights of the corners of the voxel at `low`, at distance t of a ray."""
    x, y, z = locate(
        origins[ray, 0], origins[ray, 1], origins[ray, 2],
        directions[ray, 0], directions[ray, 1], directions[ray, 2], t, contracted, size,
    )  # fmt: skip
    fx, fy, fz = x - low[0], y - low[1], z - low[2]
    gx, gy, gz = 1 - fx, 1 - fy, 1 - fz
    a, b, c, d = gx * gy, gx * fy, fx * gy, fx * fy
    weights[0], weights[1], weights[2], weights[3] = a * gz, a * fz, b * gz, b * fz
    weights[4], weights[5], weights[6], weights[7] = c * gz, c * fz, d * gz, d * fz


@numba.njit(cache=True, parallel=True, fastmath=RELAXED, error_model="numpy")
def _color(
    origins,
    directions,
    basis,
    order,
    ray,
    distance,
    voxel,
    corners,
    voxel_positions,
    harmonics,
    colors,
    contracted,
    size,
):
    total, width, bands = order.shape[0], harmonics.shape[1], basis.shape[1]
    half = origins.dtype.type(0.5)
    zero = origins.dtype.type(0)
    real_size = origins.dtype.type(size)
    for c in numba.prange((total + 4095) // 4096):
        mixed, weights = np.empty(width, origins.dtype), np.empty(8, origins.dtype)
        for p in range(c * 4096, min(total, (c + 1) * 4096)):
            s, r = order[p], ray[p]
            v = voxel[s]
            _corner_weights(
                origins, directions, r, distance[s], voxel_positions[v], contracted, real_size, weights
            )
            c0, c1, c2, c3, c4, c5, c6, c7 = corners[v]
            w0, w1, w2, w3, w4, w5, w6, w7 = weights
            for f in range(width):
                mixed[f] = (
                    (w0 * harmonics[c0, f] + w1 * harmonics[c1, f])
                    + (w2 * harmonics[c2, f] + w3 * harmonics[c3, f])
                ) + (
                    (w4 * harmonics[c4, f] + w5 * harmonics[c5, f])
                    + (w6 * harmonics[c6, f] + w7 * harmonics[c7, f])
                )
            for channel in range(3):
                value = half
                for f in range(bands):
                    value += mixed[channel * bands + f] * basis[r, f]
                colors[s, channel] = max(value, zero)


@numba.njit(cache=True, parallel=True, fastmath=RELAXED, error_model="numpy")
def _accumulate(first, used, distance, one_minus_alpha, colors, sums, weights):
    zero, one = sums.dtype.type(0), sums.dtype.type(1)
    for c in numba.prange((first.shape[0] + RAYS - 1) // RAYS):
        for r in range(c * RAYS, min(first.shape[0], (c + 1) * RAYS)):
            transmittance, red, green, blue, weighted_distance = one, zero, zero, zero, zero
            for s in range(first[r], first[r] + used[r]):
                through = one_minus_alpha[s]
                weight = transmittance * (one - through)
                if len(weights) > 0:
                    weights[s] = weight
                red += weight * colors[s, 0]
                green += weight * colors[s, 1]
                blue += weight * colors[s, 2]
                weighted_distance += weight * distance[s]
                transmittance *= through
            sums[r, 0], sums[r, 1], sums[r, 2] = red, green, blue
            sums[r, 3], sums[r, 4] = one - transmittance, weighted_distance


@numba.njit(cache=True, parallel=True, fastmath=RELAXED, error_model="numpy")
def _backward_of_rays(first, used, distance, optical_depth, one_minus_alpha, colors, grad_outputs, by_sample):
    """Write, for every sample, the gradients of its color and of its log density, and its weight."""
    zero, one = colors.dtype.type(0), colors.dtype.type(1)
    max_depth = colors.dtype.type(MAX_OPTICAL_DEPTH)
    for c in numba.prange((first.shape[0] + RAYS - 1) // RAYS):
        for r in range(c * RAYS, min(first.shape[0], (c + 1) * RAYS)):
            grad_red, grad_green, grad_blue, grad_opacity, grad_distance = (
                grad_outputs[r, 0], grad_outputs[r, 1], grad_outputs[r, 2], grad_outputs[r, 3], grad_outputs[r, 4],
            )  # fmt: skip
            start, end = first[r], first[r] + used[r]
            remaining, transmittance = zero, one
            for s in range(start, end):
                through = one_minus_alpha[s]
                value = (
                    grad_red * colors[s, 0]
                    + grad_green * colors[s, 1]
                    + grad_blue * colors[s, 2]
                    + grad_opacity
                    + grad_distance * distance[s]
                )
                remaining += transmittance * (one - through) * value
                by_sample[s, 3], by_sample[s, 4] = value, transmittance * (one - through)
                transmittance *= through
            transmittance = one
            for s in range(start, end):
                transmittance *= one_minus_alpha[s]
                value, weight, depth = by_sample[s, 3], by_sample[s, 4], optical_depth[s]
                remaining -= weight * value
                by_sample[s, 3] = depth * (transmittance * value - remaining) if depth < max_depth else zero
                by_sample[s, 0] = weight * grad_red if colors[s, 0] > 0 else zero
                by_sample[s, 1] = weight * grad_green if colors[s, 1] > 0 else zero
                by_sample[s, 2] = weight * grad_blue if colors[s, 2] > 0 else zero


@numba.njit(cache=True, parallel=True, fastmath=RELAXED, error_model="numpy")
def _scatter(
    origins, directions, basis, order, ray, planes, distance, voxel, corners, voxel_positions, by_sample, parity,
    contracted, size, gradient, grad_harmonics,
):  # fmt: skip
    width, bands = grad_harmonics.shape[1], basis.shape[1]
    num_planes = planes.shape[0] - 1
    real_size = origins.dtype.type(size)
    for pair in numba.prange((num_planes - parity + 1) // 2):
        plane = 2 * pair + parity
        row, weights = np.empty(width, origins.dtype), np.empty(8, origins.dtype)
        for p in range(planes[plane], planes[plane + 1]):
            s, r = order[p], ray[p]
            v = voxel[s]
            _corner_weights(
                origins, directions, r, distance[s], voxel_positions[v], contracted, real_size, weights
            )
            for channel in range(3):
                for f in range(bands):
                    row[channel * bands + f] = basis[r, f] * by_sample[s, channel]
            for q in range(8):
                corner, weight = corners[v, q], weights[q]
                gradient[corner] += weight * by_sample[s, 3]
                for f in range(width):
                    grad_harmonics[corner, f] += weight * row[f]
