"""Ray traversal, parallel over rays: samples are counted and the first ones recorded, then all are written packed.

Only rays with more samples than are recorded are traversed twice. In an empty cell or block of cells, a ray advances by
whole steps to the last one before it leaves, so that rounding never skips a sample; in contracted space outside the
inner cube, it advances step by step.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._batch import allocate, array
from unrender.kernels._contraction_cpu import contract, contracted_step
from unrender.kernels._dispatch import cpu_threads
from unrender.kernels.traverse.cells import BLOCK, CellGrid

RAYS = 64
"""Rays per task."""
RECORDED = 192
"""Numbers recorded for each ray: a distance for each sample and, in contracted space, a length."""
HUGE = 1e30


def forward(
    grid: CellGrid,
    origins: Tensor,
    directions: Tensor,
    t_near: Tensor,
    t_far: Tensor,
    steps: Tensor,
    jitter: Tensor,
    capacity: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    local = ((origins - grid.center) / grid.half_extent, directions / grid.half_extent)
    given = [array(t) for t in (grid.cells, grid.blocks, *local, t_near, t_far, steps, jitter)]
    count, contracted = len(t_near), grid.contracted
    offsets = torch.zeros(count + 1, dtype=torch.int64, device="cpu")
    recorded = allocate(t_near, count, 2 if contracted else 1, RECORDED // (2 if contracted else 1)).numpy()
    with cpu_threads(8 * count):
        _count_all(*given, contracted, recorded, offsets.numpy())
        offsets = offsets.cumsum(0)
        found = allocate(t_near, 2, int(offsets[-1]) if capacity is None else capacity)
        _write_all(*given, contracted, recorded, offsets.numpy(), found.numpy())
    return found[0], found[1], offsets


@numba.njit(inline="always", error_model="numpy")
def _exit(x, y, z, ix, iy, iz, width):
    """Return the distance to the exit of a cube of `width` cells; ix, iy, iz: 1 / velocity, in cells."""
    x, y, z = (
        x - np.floor(x / width) * width,
        y - np.floor(y / width) * width,
        z - np.floor(z / width) * width,
    )
    t_x = (width - x) * ix if ix > 0 else -x * ix
    t_y = (width - y) * iy if iy > 0 else -y * iy
    t_z = (width - z) * iz if iz > 0 else -z * iz
    return min(t_x, t_y, t_z)


@numba.njit(cache=True, error_model="numpy")
def _sample_bounded(cells, blocks, o, d, t_near, t_far, step, jitter, samples):
    """Write distances up to the capacity of `samples`, and return the number of all."""
    real = type(t_near)
    one, half, block = real(1), real(0.5), np.uint32(BLOCK)
    width, height, depth = real(cells.shape[0]), real(cells.shape[1]), real(cells.shape[2])
    ox, oy, oz = (o[0] + one) * (width * half), (o[1] + one) * (height * half), (o[2] + one) * (depth * half)
    dx, dy, dz = d[0] * (width * half), d[1] * (height * half), d[2] * (depth * half)
    ix = one / dx if dx != 0 else real(HUGE)
    iy = one / dy if dy != 0 else real(HUGE)
    iz = one / dz if dz != 0 else real(HUGE)
    capacity, found, i = samples.shape[1], 0, 0
    while True:
        t = t_near + (real(i) + jitter) * step
        if not t < t_far:
            return found
        i += 1
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        if x >= 0 and x < width and y >= 0 and y < height and z >= 0 and z < depth:
            a, b, c = np.uint32(x), np.uint32(y), np.uint32(z)
            if cells[a, b, c]:
                if found < capacity:
                    samples[0, found] = t
                found += 1
            else:
                empty = not blocks[a // block, b // block, c // block]
                distance = min(_exit(x, y, z, ix, iy, iz, real(BLOCK) if empty else one), t_far - t)
                skipped = np.floor(distance / step - one)
                if skipped > 0:
                    i += int(skipped)


@numba.njit(cache=True, error_model="numpy")
def _sample_contracted(cells, blocks, o, d, t_near, t_far, step, jitter, samples):
    """Write distances and lengths up to the capacity of `samples`, and return the number of all."""
    real = type(t_near)
    one, half, quarter, huge, block = real(1), real(0.5), real(0.25), real(HUGE), np.uint32(BLOCK)
    width, height, depth = real(cells.shape[0]), real(cells.shape[1]), real(cells.shape[2])
    ox, oy, oz, dx, dy, dz = o[0], o[1], o[2], d[0], d[1], d[2]
    ix = one / dx if dx != 0 else huge
    iy = one / dy if dy != 0 else huge
    iz = one / dz if dz != 0 else huge
    capacity, found, t = samples.shape[1], 0, t_near
    while t < t_far:
        length = contracted_step(ox, oy, oz, dx, dy, dz, t, step)
        t_sample = t + jitter * length
        x, y, z = ox + t_sample * dx, oy + t_sample * dy, oz + t_sample * dz
        inner, edge = max(abs(x), abs(y), abs(z)) <= one and length == step, huge
        if inner:  # steps are uniform up to the end of the box
            edge = _exit((x + one) * half, (y + one) * half, (z + one) * half, 2 * ix, 2 * iy, 2 * iz, one)
        x, y, z = contract(x, y, z)
        x, y, z = (x + 2) * quarter * width, (y + 2) * quarter * height, (z + 2) * quarter * depth
        if x >= 0 and x < width and y >= 0 and y < height and z >= 0 and z < depth:
            a, b, c = np.uint32(x), np.uint32(y), np.uint32(z)
            if cells[a, b, c]:
                if t_sample < t_far:
                    if found < capacity:
                        samples[0, found], samples[1, found] = t_sample, length
                    found += 1
            elif inner:
                empty = not blocks[a // block, b // block, c // block]
                exit_cell = _exit(
                    x, y, z, 4 * ix / width, 4 * iy / height, 4 * iz / depth, real(BLOCK) if empty else one
                )
                skipped = np.floor(min(exit_cell, edge, t_far - t_sample) / length - one)
                if skipped > 0:
                    t += skipped * length
        t += length
    return found


@numba.njit(inline="always", error_model="numpy")
def _sample(cells, blocks, o, d, t_near, t_far, step, jitter, contracted, samples):
    if not step > 0 or not t_far - t_near < np.inf:
        return 0
    if contracted:
        return _sample_contracted(cells, blocks, o, d, t_near, t_far, step, jitter, samples)
    return _sample_bounded(cells, blocks, o, d, t_near, t_far, step, jitter, samples)


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _count_all(
    cells, blocks, origins, directions, t_near, t_far, steps, jitter, contracted, recorded, offsets
):  # fmt: skip
    rays = len(t_near)
    for part in numba.prange((rays + RAYS - 1) // RAYS):
        for ray in range(part * RAYS, min(rays, (part + 1) * RAYS)):
            offsets[ray + 1] = _sample(
                cells, blocks, origins[ray], directions[ray], t_near[ray], t_far[ray], steps[ray], jitter[ray],
                contracted, recorded[ray],
            )  # fmt: skip


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _write_all(
    cells, blocks, origins, directions, t_near, t_far, steps, jitter, contracted, recorded, offsets, found
):  # fmt: skip
    rays = len(t_near)
    for part in numba.prange((rays + RAYS - 1) // RAYS):
        for ray in range(part * RAYS, min(rays, (part + 1) * RAYS)):
            start, end = offsets[ray], offsets[ray + 1]
            if end > found.shape[1]:
                continue
            if not contracted:
                found[1, start:end] = steps[ray]
            if end - start <= recorded.shape[2]:
                found[: recorded.shape[1], start:end] = recorded[ray, :, : end - start]
            else:
                _sample(
                    cells, blocks, origins[ray], directions[ray], t_near[ray], t_far[ray], steps[ray], jitter[ray],
                    contracted, found[:, start:end],
                )  # fmt: skip
