"""Walks through space, twice: to count, then to write. Rays are spread over the threads.

From an empty cell a ray leaps by whole steps, to the last one that begins before it leaves the cell; where space is
bent it goes step by step.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._batch import room
from unrender.kernels._dispatch import cpu_threads

BLOCK = 64
"""Rays that one thread takes at a time."""


def forward(
    occupied: Tensor,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    jitter: Tensor,
    step: float,
    contracted: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    arrays = [t.contiguous().numpy() for t in (occupied, origins, directions, near, far, jitter)]
    size = arrays[3].dtype.type(step)
    offsets = torch.zeros(len(near) + 1, dtype=torch.int64)
    nothing = room(near, 0).numpy()
    with cpu_threads(8 * len(near)):
        _walk_all(*arrays, size, contracted, offsets.numpy(), nothing, nothing, False)
        offsets = offsets.cumsum(0)
        distances, lengths = (room(near, int(offsets[-1])) for _ in range(2))
        _walk_all(*arrays, size, contracted, offsets.numpy(), distances.numpy(), lengths.numpy(), True)
    return distances, lengths, offsets


@numba.njit(inline="always", error_model="numpy")
def _stride(o, d, t, step):
    """Return the length of the step that begins at distance t, in contracted space."""
    x, y, z = o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]
    r = max(abs(x), abs(y), abs(z))
    if r <= 1:
        return step
    if r == abs(x):
        along = d[0] if x > 0 else -d[0]
    elif r == abs(y):
        along = d[1] if y > 0 else -d[1]
    else:
        along = d[2] if z > 0 else -d[2]
    scale, turn = (2 - 1 / r) / r, along * (2 / r - 2) / (r * r)
    vx, vy, vz = d[0] * scale + x * turn, d[1] * scale + y * turn, d[2] * scale + z * turn
    length = np.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    speed = np.sqrt(vx * vx + vy * vy + vz * vz)
    return min(step * length / speed, r / (4 * length))


@numba.njit(inline="always", error_model="numpy")
def _leave(cell, place, velocity):
    """Return how far it is to the end of a cell along one axis; all in cells."""
    if velocity > 0:
        return (cell + 1 - place) / velocity
    return (cell - place) / velocity if velocity < 0 else np.inf


@numba.njit(cache=True, error_model="numpy")
def _walk(occupied, o, d, near, far, jitter, step, contracted, distances, lengths, writes):
    size = occupied.shape[0]
    one = type(near)(1)
    half, quarter = one * size / 2, one * size / 4
    found, t = 0, near
    while t < far:
        length = _stride(o, d, t, step) if contracted else step
        here = t + jitter * length
        x, y, z = o[0] + here * d[0], o[1] + here * d[1], o[2] + here * d[2]
        bent = False
        if contracted:
            r = max(abs(x), abs(y), abs(z))
            bent = r > 1
            scale = (2 - one / r) / r if bent else one
            x, y, z = (x * scale + 2) * quarter, (y * scale + 2) * quarter, (z * scale + 2) * quarter
            unit = quarter
        else:
            x, y, z = (x + 1) * half, (y + 1) * half, (z + 1) * half
            unit = half
        i, j, k = np.floor(x), np.floor(y), np.floor(z)
        inside = i >= 0 and i < size and j >= 0 and j < size and k >= 0 and k < size
        if inside and occupied[int(i), int(j), int(k)]:
            if here < far:
                if writes:
                    distances[found] = here
                    lengths[found] = length
                found += 1
        elif inside and not bent and length == step:
            out = min(_leave(i, x, d[0] * unit), _leave(j, y, d[1] * unit), _leave(k, z, d[2] * unit))
            if contracted:  # steps are even up to the inner cube only
                for axis in range(3):
                    p = o[axis] + here * d[axis]
                    way = (one - p) / d[axis] if d[axis] > 0 else (-one - p) / d[axis]
                    if d[axis] != 0 and way < out:
                        out = way
            leap = np.floor(min(out, far - here) / length - one)  # one more step is added below
            if leap > 0:
                t += leap * length
        t += length
    return found


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _walk_all(
    occupied, origins, directions, near, far, jitter, step, contracted, offsets, distances, lengths, writes
):
    """Count into `offsets`, or write to where they say."""
    rays = len(near)
    for block in numba.prange((rays + BLOCK - 1) // BLOCK):
        for ray in range(block * BLOCK, min(rays, (block + 1) * BLOCK)):
            begin, end = (offsets[ray], offsets[ray + 1]) if writes else (0, 0)
            found = _walk(
                occupied, origins[ray], directions[ray], near[ray], far[ray], jitter[ray], step, contracted,
                distances[begin:end], lengths[begin:end], writes,
            )  # fmt: skip
            if not writes:
                offsets[ray + 1] = found
