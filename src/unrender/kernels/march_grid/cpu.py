"""Rays through a voxel grid; rays are spread over the threads.

On the way back some rays are walked again, and leave of each sample its weight and the slope by its alpha. Then the
grid is gone through by slabs, to which rays belong in runs of samples: a slab touches itself and one layer of the one
before, so all even slabs can be added up at once, then all odd ones, and every voxel gets its shares in the same order
for any number of threads. Then come the next rays.
"""

import numba
import numpy as np
from torch import Tensor

from unrender.kernels._batch import allocate, array
from unrender.kernels._dispatch import cpu_threads
from unrender.kernels._llvm.channels import add, mix, tuple_setitem
from unrender.kernels.sample_grid.cpu import corners, near

BLOCK = 16
"""Rays that one thread takes at a time."""
SAMPLES_AT_ONCE = 1 << 22
"""Whose slopes are kept: a number that does not depend on that of the threads."""
SLAB = 4
"""Layers of voxels that belong together."""
PARTS = 64
"""Pieces in which rays are walked again: a number that does not depend on that of the threads."""
RELAXED = {"contract"}


def forward(grid: Tensor, origins: Tensor, directions: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    color, opacity = allocate(grid, len(origins), grid.shape[-1] - 1), allocate(grid, len(origins))
    arrays = [array(t) for t in (grid, origins, directions, distances)]
    with cpu_threads(len(origins) * distances.shape[1]):
        _look(*arrays, _nothing(arrays[0]), color.numpy(), opacity.numpy())
    return color, opacity


def backward(
    grid: Tensor, origins: Tensor, directions: Tensor, distances: Tensor, of_color: Tensor, of_opacity: Tensor
) -> Tensor:
    to_grid, samples = allocate(grid, *grid.shape).zero_(), distances.shape[1]
    count = min(max(1, SAMPLES_AT_ONCE // max(samples, 1)), len(origins))
    voxels, *rays = [array(t) for t in (grid, origins, directions, distances, of_color)]
    nothing, opacity = _nothing(voxels), array(of_opacity)
    slopes = allocate(grid, count * samples, 2).numpy()
    runs = np.empty((PARTS, -(-count // PARTS) * samples, 3), np.int32)  # what is not filled takes no memory
    with cpu_threads(len(origins) * samples):
        for begin in range(0, len(origins) if samples else 0, count):
            end = min(begin + count, len(origins))
            found = np.zeros((PARTS, grid.shape[0] // SLAB + 1), np.int64)
            _walk_again(voxels, *rays, opacity, begin, end, nothing, slopes, runs, found)
            order, starts = _sort(runs, found)
            for parity in (0, 1):
                _scatter(*rays, begin, nothing, slopes, order, starts, parity, to_grid.numpy())
    return to_grid


def _nothing(grid):
    """Return a zero for each channel."""
    return (grid.dtype.type(0),) * grid.shape[-1]


@numba.njit(cache=True, error_model="numpy", inline="always")
def _at(origins, directions, ray, distance):
    return (
        origins[ray, 0] + distance * directions[ray, 0],
        origins[ray, 1] + distance * directions[ray, 1],
        origins[ray, 2] + distance * directions[ray, 2],
    )


@numba.njit(cache=True, error_model="numpy", inline="always")
def _of_colors(of_color, ray, nothing):
    """Return the slopes by the colors of a ray at their places among the channels."""
    slopes = nothing
    for c in range(1, len(nothing)):
        slopes = tuple_setitem(slopes, c, of_color[ray, c - 1])
    return slopes


@numba.njit(cache=True, error_model="numpy", inline="always")
def _dim(light, alpha, one, faint):
    """Take an alpha of the light; below the smallest normal number, where numbers are slow, there is none."""
    left = light * (one - alpha)
    return left if abs(left) >= faint else one - one


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath=RELAXED)
def _look(grid, origins, directions, distances, nothing, color, opacity):
    depth, height, width, _ = grid.shape
    one = grid.dtype.type(1)
    faint, half = grid.dtype.type(np.finfo(grid.dtype).tiny), grid.dtype.type(0.5)
    for block in numba.prange((len(origins) + BLOCK - 1) // BLOCK):
        for ray in range(block * BLOCK, min(len(origins), (block + 1) * BLOCK)):
            mine = distances[ray if len(distances) > 1 else 0]
            light, covered, seen = one, one - one, nothing
            for k in range(np.uint64(len(mine))):
                x, y, z = _at(origins, directions, ray, mine[k])
                if near(x, y, z, depth, height, width):
                    rows, shares = corners(x, y, z, depth, height, width, half)
                    values = mix(grid, rows, shares, nothing)
                    weight = light * values[0]
                    for c in range(len(nothing)):
                        seen = tuple_setitem(seen, c, seen[c] + weight * values[c])
                    covered += weight
                    light = _dim(light, values[0], one, faint)
            for c in range(1, len(nothing)):
                color[ray, c - 1] = seen[c]
            opacity[ray] = covered


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath=RELAXED)
def _walk_again(
    grid, origins, directions, distances, of_color, of_opacity, begin, end, nothing, slopes, runs, found
):  # fmt: skip
    """Fill the slope by each sample's alpha and its weight, and the runs: first sample, the one after the last, slab.

    Runs end where samples are far from the grid, or in another slab; `found` counts those of each part and slab.
    """
    depth, height, width, _ = grid.shape
    one, samples = grid.dtype.type(1), distances.shape[1]
    faint, half = grid.dtype.type(np.finfo(grid.dtype).tiny), grid.dtype.type(0.5)
    part_size = (end - begin + PARTS - 1) // PARTS
    for part in numba.prange(PARTS):
        alphas, entering, brings = (
            np.empty(samples, grid.dtype),
            np.empty(samples, grid.dtype),
            np.empty(samples, grid.dtype),
        )
        number = 0
        for ray in range(begin + part * part_size, min(end, begin + (part + 1) * part_size)):
            first, light, here = (ray - begin) * samples, one, -1
            mine, of_colors = distances[ray if len(distances) > 1 else 0], _of_colors(of_color, ray, nothing)
            for k in range(samples):
                x, y, z = _at(origins, directions, ray, mine[k])
                slab = -1
                if near(x, y, z, depth, height, width):
                    slab = (int(np.floor(z - half)) + 1) // SLAB
                    rows, shares = corners(x, y, z, depth, height, width, half)
                    values = mix(grid, rows, shares, nothing)
                    bring = of_opacity[ray]
                    for c in range(len(nothing)):
                        bring += of_colors[c] * values[c]
                    alphas[k], entering[k], brings[k] = values[0], light, bring
                    light = _dim(light, values[0], one, faint)
                if slab != here:
                    if here >= 0:
                        runs[part, number - 1, 1] = first + k
                    if slab >= 0:
                        runs[part, number, 0], runs[part, number, 2] = first + k, slab
                        found[part, slab] += 1
                        number += 1
                    here = slab
            if here >= 0:
                runs[part, number - 1, 1] = first + samples
            _weigh(alphas, entering, brings, runs[part], number, first, slopes)


@numba.njit(cache=True, error_model="numpy", inline="always")
def _weigh(alphas, entering, brings, runs, number, first, slopes):
    """Go back through the runs of one ray: what light at a sample would still bring gives the slope by its alpha."""
    rest, one = alphas.dtype.type(0), alphas.dtype.type(1)
    while number > 0 and runs[number - 1, 0] >= first:
        number -= 1
        for n in range(runs[number, 1] - 1, runs[number, 0] - 1, -1):
            k = n - first
            slopes[n, 0] = entering[k] * (brings[k] - rest)
            slopes[n, 1] = entering[k] * alphas[k]
            rest = alphas[k] * brings[k] + (one - alphas[k]) * rest


@numba.njit(cache=True, parallel=True)
def _sort(runs, found):
    """Return the runs by slabs, part after part, and where each slab begins."""
    parts, slabs = found.shape
    starts, places = np.zeros(slabs + 1, np.int64), np.empty_like(found)
    for slab in range(slabs):
        starts[slab + 1] = starts[slab]
        for part in range(parts):
            places[part, slab] = starts[slab + 1]
            starts[slab + 1] += found[part, slab]
    order = np.empty((starts[-1], 2), np.int32)
    for part in numba.prange(parts):
        for number in range(found[part].sum()):
            first, last, slab = runs[part, number]
            place = places[part, slab]
            order[place, 0], order[place, 1] = first, last
            places[part, slab] += 1
    return order, starts


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath=RELAXED)
def _scatter(
    origins, directions, distances, of_color, begin, nothing, slopes, order, starts, parity, to_grid
):
    depth, height, width, _ = to_grid.shape
    slabs, samples = len(starts) - 1, distances.shape[1]
    half = to_grid.dtype.type(0.5)
    for pair in numba.prange((slabs + 1 - parity) // 2):
        slab = 2 * pair + parity
        for place in range(starts[slab], starts[slab + 1]):
            first, last = order[place]
            ray, k = begin + first // samples, first % samples
            mine, of_colors = distances[ray if len(distances) > 1 else 0], _of_colors(of_color, ray, nothing)
            for n in range(first, last):
                x, y, z = _at(origins, directions, ray, mine[k + n - first])
                rows, shares = corners(x, y, z, depth, height, width, half)
                slope = tuple_setitem(of_colors, 0, slopes[n, 0])
                for c in range(1, len(nothing)):
                    slope = tuple_setitem(slope, c, slopes[n, 1] * of_colors[c])
                add(to_grid, rows, shares, slope)
