"""Samples of rays in another order: by the brick that they lie in, or side by side."""

import numba

RAYS = 256
"""That one thread takes at a time."""


@numba.njit(cache=True, parallel=True)
def count_by_brick(first, used, brick, counts):
    """Count the samples of each part of the rays in each brick."""
    num_rays, parts = first.shape[0], counts.shape[0]
    share = (num_rays + parts - 1) // parts
    for part in numba.prange(parts):
        for r in range(part * share, min(num_rays, (part + 1) * share)):
            for s in range(first[r], first[r] + used[r]):
                counts[part, brick[s]] += 1


@numba.njit(cache=True)
def running_sum(counts, starts):
    """Turn counts by part and brick into places, brick by brick."""
    total = 0
    for brick in range(counts.shape[1]):
        starts[brick] = total
        for part in range(counts.shape[0]):
            number = counts[part, brick]
            counts[part, brick] = total
            total += number
    starts[-1] = total


@numba.njit(cache=True, parallel=True)
def sort_by_brick(first, used, brick, places, order, ray):
    """Fill the indices of samples, brick by brick, and those of their rays; `places` are counted up."""
    num_rays, parts = first.shape[0], places.shape[0]
    share = (num_rays + parts - 1) // parts
    for part in numba.prange(parts):
        for r in range(part * share, min(num_rays, (part + 1) * share)):
            for s in range(first[r], first[r] + used[r]):
                place = places[part, brick[s]]
                places[part, brick[s]] = place + 1
                order[place], ray[place] = s, r


@numba.njit(cache=True, parallel=True)
def weigh_voxels(planes, order, voxel, weights, voxel_weights):
    """Fill the largest weight in each voxel; a voxel lies in one plane of bricks."""
    for plane in numba.prange(planes.shape[0] - 1):
        for p in range(planes[plane], planes[plane + 1]):
            s = order[p]
            voxel_weights[voxel[s]] = max(voxel_weights[voxel[s]], weights[s])


@numba.njit(cache=True, parallel=True)
def pack(source, first, offsets, target):
    """Move the samples of each ray to where those of the one before end."""
    rays = first.shape[0]
    for c in numba.prange((rays + RAYS - 1) // RAYS):
        for r in range(c * RAYS, min(rays, (c + 1) * RAYS)):
            for i in range(offsets[r + 1] - offsets[r]):
                target[offsets[r] + i] = source[first[r] + i]
