"""Walks through space, to count and to note the first samples of each ray; then they move together.

Only rays with more samples than the buffer holds are walked along once more. Rays are spread over the threads.

From an empty cell, or block of cells, a ray leaps by whole steps, to the last one that begins before it leaves it;
where space is bent it goes step by step.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._batch import allocate
from unrender.kernels._contraction_cpu import contracted_step
from unrender.kernels._dispatch import cpu_threads
from unrender.kernels.walk_space.blocks import BLOCK

RAYS = 64
"""Rays that one thread takes at a time."""
NOTED = 96
"""Samples of each ray that are noted, at most."""


def forward(
    occupied: Tensor,
    blocks: Tensor,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    jitter: Tensor,
    step: float,
    contracted: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    arrays = [t.contiguous().numpy() for t in (occupied, blocks, origins, directions, near, far, jitter)]
    size = arrays[4].dtype.type(step)
    offsets = torch.zeros(len(near) + 1, dtype=torch.int64)
    noted = allocate(near, 2 * NOTED * len(near)).view(len(near), 2, NOTED).numpy()
    with cpu_threads(8 * len(near)):
        _count_all(*arrays, size, contracted, noted, offsets.numpy())
        offsets = offsets.cumsum(0)
        found = allocate(near, 2 * int(offsets[-1])).view(2, -1)
        _write_all(*arrays, size, contracted, noted, offsets.numpy(), found.numpy())
    return found[0], found[1], offsets


@numba.njit(inline="always", error_model="numpy")
def _leave(x, y, z, ix, iy, iz, wide):
    """Return how far it is to the end of a cell, or a block of so many; places in cells, i: 1 / velocity in cells."""
    x, y, z = x - np.floor(x / wide) * wide, y - np.floor(y / wide) * wide, z - np.floor(z / wide) * wide
    way_x = (wide - x) * ix if ix > 0 else -x * ix
    way_y = (wide - y) * iy if iy > 0 else -y * iy
    way_z = (wide - z) * iz if iz > 0 else -z * iz
    return min(way_x, way_y, way_z)


@numba.njit(cache=True, error_model="numpy")
def _walk(occupied, blocks, o, d, near, far, jitter, step, contracted, samples):
    """Write as many samples as the buffer holds, distances and lengths, and return how many there are."""
    size = occupied.shape[0]
    one = type(near)(1)
    unit = one * size / 4 if contracted else one * size / 2
    ox, oy, oz, dx, dy, dz = o[0], o[1], o[2], d[0], d[1], d[2]
    most = one * 1e30
    ix = one / (dx * unit) if dx != 0 else most
    iy = one / (dy * unit) if dy != 0 else most
    iz = one / (dz * unit) if dz != 0 else most
    middle = one * 2 if contracted else one
    found, t, length = 0, near, step
    while t < far:
        if contracted:
            length = contracted_step(ox, oy, oz, dx, dy, dz, t, step)
        here = t + jitter * length
        x, y, z = ox + here * dx, oy + here * dy, oz + here * dz
        bent, inner = False, most
        if contracted:
            r = max(abs(x), abs(y), abs(z))
            bent = r > 1
            scale = (2 - one / r) / r if bent else one
            if length == step and not bent:  # steps are even up to the end of the inner cube
                inner = _leave(
                    (x + 1) / 2, (y + 1) / 2, (z + 1) / 2, 2 * ix * unit, 2 * iy * unit, 2 * iz * unit, one
                )
            x, y, z = x * scale, y * scale, z * scale
        x, y, z = (x + middle) * unit, (y + middle) * unit, (z + middle) * unit
        if x >= 0 and x < size and y >= 0 and y < size and z >= 0 and z < size:
            i, j, k = np.uint32(x), np.uint32(y), np.uint32(z)
            if occupied[i, j, k]:
                if here < far:
                    if found < samples.shape[1]:
                        samples[0, found], samples[1, found] = here, length
                    found += 1
            elif not bent and length == step:
                empty = not blocks[i // np.uint32(BLOCK), j // np.uint32(BLOCK), k // np.uint32(BLOCK)]
                out = min(_leave(x, y, z, ix, iy, iz, one * BLOCK if empty else one), inner, far - here)
                leap = np.floor(out / length - one)  # one more step is added below
                if leap > 0:
                    t += leap * length
        t += length
    return found


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _count_all(
    occupied, blocks, origins, directions, near, far, jitter, step, contracted, noted, offsets
):  # fmt: skip
    rays = len(near)
    for part in numba.prange((rays + RAYS - 1) // RAYS):
        for ray in range(part * RAYS, min(rays, (part + 1) * RAYS)):
            offsets[ray + 1] = _walk(
                occupied, blocks, origins[ray], directions[ray], near[ray], far[ray], jitter[ray], step, contracted,
                noted[ray],
            )  # fmt: skip


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _write_all(
    occupied, blocks, origins, directions, near, far, jitter, step, contracted, noted, offsets, found
):  # fmt: skip
    rays = len(near)
    for part in numba.prange((rays + RAYS - 1) // RAYS):
        for ray in range(part * RAYS, min(rays, (part + 1) * RAYS)):
            begin, end = offsets[ray], offsets[ray + 1]
            if end - begin <= NOTED:
                found[:, begin:end] = noted[ray, :, : end - begin]
            else:
                _walk(
                    occupied, blocks, origins[ray], directions[ray], near[ray], far[ray], jitter[ray], step,
                    contracted, found[:, begin:end],
                )  # fmt: skip
