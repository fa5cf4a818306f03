"""Reordering of the samples of rays: by brick, or packed ray by ray."""

import numba

RAYS = 256
"""Rays per task."""


@numba.njit(cache=True, parallel=True)
def count_by_brick(first, used, brick, counts):
    """Count the samples in each brick, for each chunk of rays."""
    num_rays, chunks = first.shape[0], counts.shape[0]
    size = (num_rays + chunks - 1) // chunks
    for chunk in numba.prange(chunks):
        for r in range(chunk * size, min(num_rays, (chunk + 1) * size)):
            for s in range(first[r], first[r] + used[r]):
                counts[chunk, brick[s]] += 1


@numba.njit(cache=True)
def prefix_sum(counts, starts):
    """Convert counts by chunk and brick to offsets, brick by brick (exclusive prefix sum)."""
    total = 0
    for brick in range(counts.shape[1]):
        starts[brick] = total
        for chunk in range(counts.shape[0]):
            number = counts[chunk, brick]
            counts[chunk, brick] = total
            total += number
    starts[-1] = total


@numba.njit(cache=True, parallel=True)
def sort_by_brick(first, used, brick, offsets, order, ray):
    """Fill the indices of samples, brick by brick, and those of their rays; advances `offsets`."""
    num_rays, chunks = first.shape[0], offsets.shape[0]
    size = (num_rays + chunks - 1) // chunks
    for chunk in numba.prange(chunks):
        for r in range(chunk * size, min(num_rays, (chunk + 1) * size)):
            for s in range(first[r], first[r] + used[r]):
                position = offsets[chunk, brick[s]]
                offsets[chunk, brick[s]] = position + 1
                order[position], ray[position] = s, r


@numba.njit(cache=True, parallel=True)
def max_voxel_weights(planes, order, voxel, weights, voxel_weights):
    """Fill the largest weight in each voxel; a voxel lies in one plane of bricks."""
    for plane in numba.prange(planes.shape[0] - 1):
        for p in range(planes[plane], planes[plane + 1]):
            s = order[p]
            voxel_weights[voxel[s]] = max(voxel_weights[voxel[s]], weights[s])


@numba.njit(cache=True, parallel=True)
def pack(source, first, offsets, target):
    """Pack the samples of rays without gaps."""
    rays = first.shape[0]
    for c in numba.prange((rays + RAYS - 1) // RAYS):
        for r in range(c * RAYS, min(rays, (c + 1) * RAYS)):
            for i in range(offsets[r + 1] - offsets[r]):
                target[offsets[r] + i] = source[first[r] + i]
