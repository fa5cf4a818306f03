"""Walks through a grid, into buffers for all samples, of which little is touched; then what was found moves together.

Rays are spread over the threads. From an empty voxel a ray leaps to the last sample before it leaves it; rounding can
then never skip a sample.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._batch import allocate
from unrender.kernels._dispatch import cpu_threads

BLOCK = 64
"""Rays that one thread takes at a time."""


def forward(
    occupied: Tensor, origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    counts = counts.clamp(min=0)
    arrays = [t.detach().contiguous().numpy() for t in (occupied, origins, directions, near, far, counts)]
    starts = _starts(counts)
    space, used = allocate(near, int(starts[-1])), torch.empty_like(counts)
    with cpu_threads(len(counts)):
        _walk_all(*arrays, starts.numpy(), space.numpy(), used.numpy())
        offsets = _starts(used)
        distances = allocate(near, int(offsets[-1]))
        _pack(space.numpy(), starts.numpy(), offsets.numpy(), distances.numpy())
    return distances, offsets


def _starts(counts):
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


@numba.njit(cache=True, error_model="numpy")
def _leave(voxel, origin, direction):
    """Return the distance at which a ray leaves a voxel along one axis."""
    if direction > 0:
        return (voxel + 1 - origin) / direction
    return (voxel - origin) / direction if direction < 0 else np.inf


@numba.njit(cache=True, error_model="numpy")
def _walk(occupied, origin, direction, near, far, count, distances):
    depth, height, width = occupied.shape
    dtype = type(near)
    step, half, found, i = (far - near) / dtype(max(count, 1)), dtype(0.5), 0, 0
    can_leap = step * max(abs(direction[0]), abs(direction[1]), abs(direction[2])) < 1
    while i < count:
        t = near + (dtype(i) + half) * step
        x = np.floor(origin[0] + t * direction[0])
        y = np.floor(origin[1] + t * direction[1])
        z = np.floor(origin[2] + t * direction[2])
        inside = x >= 0 and x < width and y >= 0 and y < height and z >= 0 and z < depth
        if inside and occupied[int(z), int(y), int(x)]:
            distances[found] = t
            found += 1
        elif inside and can_leap:
            end = min(
                _leave(x, origin[0], direction[0]),
                _leave(y, origin[1], direction[1]),
                _leave(z, origin[2], direction[2]),
            )
            leap = (end - near) / step - 1.5  # the last sample not behind the voxel, less the one added below
            if leap > i:
                i = count if leap > count else int(leap)
        i += 1
    return found


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _walk_all(occupied, origins, directions, near, far, counts, starts, space, used):
    """Write the samples of each ray to where its buffer starts, and how many they are."""
    rays = len(counts)
    for block in numba.prange((rays + BLOCK - 1) // BLOCK):
        for ray in range(block * BLOCK, min(rays, (block + 1) * BLOCK)):
            target = space[starts[ray] : starts[ray + 1]]
            used[ray] = _walk(
                occupied, origins[ray], directions[ray], near[ray], far[ray], counts[ray], target
            )


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _pack(space, starts, offsets, distances):
    rays = len(offsets) - 1
    for block in numba.prange((rays + BLOCK - 1) // BLOCK):
        for ray in range(block * BLOCK, min(rays, (block + 1) * BLOCK)):
            begin, end = offsets[ray], offsets[ray + 1]
            distances[begin:end] = space[starts[ray] : starts[ray] + end - begin]
