"""Ray marching of a dense voxel grid, parallel over rays.

The backward pass processes rays in batches. It marches them again, and stores the weight and the gradient of the alpha
of each sample. Runs of samples of a ray in the same slab of voxel layers are then sorted by slab. A slab writes to
itself and one layer of the previous one, so that all even slabs can be processed in parallel, then all odd ones, and
every voxel accumulates its gradient in the same order for any number of threads.
"""

import numba
import numpy as np
from torch import Tensor

from unrender.kernels._batch import allocate, array
from unrender.kernels._dispatch import cpu_threads
from unrender.kernels._llvm.channels import add, mix, tuple_setitem
from unrender.kernels.sample_grid.cpu import corners, is_inside

BLOCK = 16
"""Rays per task."""
SAMPLES_AT_ONCE = 1 << 22
"""Samples per batch of the backward pass: their number does not depend on the number of threads."""
SLAB = 4
"""Voxel layers per slab."""
CHUNKS = 64
"""Chunks of rays in the backward pass: their number does not depend on the number of threads."""
RELAXED = {"contract"}


def forward(grid: Tensor, origins: Tensor, directions: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    color, opacity = allocate(grid, len(origins), grid.shape[-1] - 1), allocate(grid, len(origins))
    arrays = [array(t) for t in (grid, origins, directions, distances)]
    with cpu_threads(len(origins) * distances.shape[1]):
        _render(*arrays, _zeros(arrays[0]), color.numpy(), opacity.numpy())
    return color, opacity


def backward(
    grid: Tensor,
    origins: Tensor,
    directions: Tensor,
    distances: Tensor,
    grad_color: Tensor,
    grad_opacity: Tensor,
) -> Tensor:
    grad_grid, samples = allocate(grid, *grid.shape).zero_(), distances.shape[1]
    count = min(max(1, SAMPLES_AT_ONCE // max(samples, 1)), len(origins))
    voxels, *rays = [array(t) for t in (grid, origins, directions, distances, grad_color)]
    zeros, opacity = _zeros(voxels), array(grad_opacity)
    sample_gradients = allocate(grid, count * samples, 2).numpy()
    runs = np.empty((CHUNKS, -(-count // CHUNKS) * samples, 3), np.int32)  # unused pages take no memory
    with cpu_threads(len(origins) * samples):
        for start in range(0, len(origins) if samples else 0, count):
            end = min(start + count, len(origins))
            counts = np.zeros((CHUNKS, grid.shape[0] // SLAB + 1), np.int64)
            _gradients_of_rays(voxels, *rays, opacity, start, end, zeros, sample_gradients, runs, counts)
            order, starts = _sort(runs, counts)
            for parity in (0, 1):
                _scatter(*rays, start, zeros, sample_gradients, order, starts, parity, grad_grid.numpy())
    return grad_grid


def _zeros(grid):
    """Return a tuple with a zero for each channel."""
    return (grid.dtype.type(0),) * grid.shape[-1]


@numba.njit(cache=True, error_model="numpy", inline="always")
def _at(origins, directions, ray, distance):
    return (
        origins[ray, 0] + distance * directions[ray, 0],
        origins[ray, 1] + distance * directions[ray, 1],
        origins[ray, 2] + distance * directions[ray, 2],
    )


@numba.njit(cache=True, error_model="numpy", inline="always")
def _grad_colors(grad_color, ray, zeros):
    """Return the gradient of the colors of a ray as a tuple over all channels, with 0 for alpha."""
    gradients = zeros
    for c in range(1, len(zeros)):
        gradients = tuple_setitem(gradients, c, grad_color[ray, c - 1])
    return gradients


@numba.njit(cache=True, error_model="numpy", inline="always")
def _attenuate(transmittance, alpha, one, tiny):
    """Return the transmittance after a sample; 0 instead of subnormal numbers, which are slow."""
    remaining = transmittance * (one - alpha)
    return remaining if abs(remaining) >= tiny else one - one


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath=RELAXED)
def _render(grid, origins, directions, distances, zeros, color, opacity):
    depth, height, width, _ = grid.shape
    one = grid.dtype.type(1)
    tiny, half = grid.dtype.type(np.finfo(grid.dtype).tiny), grid.dtype.type(0.5)
    for block in numba.prange((len(origins) + BLOCK - 1) // BLOCK):
        for ray in range(block * BLOCK, min(len(origins), (block + 1) * BLOCK)):
            own = distances[ray if len(distances) > 1 else 0]
            transmittance, total, sums = one, one - one, zeros
            for k in range(np.uint64(len(own))):
                x, y, z = _at(origins, directions, ray, own[k])
                if is_inside(x, y, z, depth, height, width):
                    rows, weights = corners(x, y, z, depth, height, width, half)
                    values = mix(grid, rows, weights, zeros)
                    weight = transmittance * values[0]
                    for c in range(len(zeros)):
                        sums = tuple_setitem(sums, c, sums[c] + weight * values[c])
                    total += weight
                    transmittance = _attenuate(transmittance, values[0], one, tiny)
            for c in range(1, len(zeros)):
                color[ray, c - 1] = sums[c]
            opacity[ray] = total


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath=RELAXED)
def _gradients_of_rays(
    grid, origins, directions, distances, grad_color, grad_opacity, start, end, zeros, sample_gradients, runs, counts
):  # fmt: skip
    """Fill the gradient of each sample's alpha, its weight, and the runs: first sample, the one after the last, slab.

    Runs end where samples leave the grid or enter another slab; `counts` has the number of runs of each chunk and slab.
    """
    depth, height, width, _ = grid.shape
    one, samples = grid.dtype.type(1), distances.shape[1]
    tiny, half = grid.dtype.type(np.finfo(grid.dtype).tiny), grid.dtype.type(0.5)
    chunk_size = (end - start + CHUNKS - 1) // CHUNKS
    for chunk in numba.prange(CHUNKS):
        alphas, transmittances, weight_gradients = (
            np.empty(samples, grid.dtype),
            np.empty(samples, grid.dtype),
            np.empty(samples, grid.dtype),
        )
        number = 0
        for ray in range(start + chunk * chunk_size, min(end, start + (chunk + 1) * chunk_size)):
            first, transmittance, here = (ray - start) * samples, one, -1
            own, grad_colors = (
                distances[ray if len(distances) > 1 else 0],
                _grad_colors(grad_color, ray, zeros),
            )
            for k in range(samples):
                x, y, z = _at(origins, directions, ray, own[k])
                slab = -1
                if is_inside(x, y, z, depth, height, width):
                    slab = (int(np.floor(z - half)) + 1) // SLAB
                    rows, weights = corners(x, y, z, depth, height, width, half)
                    values = mix(grid, rows, weights, zeros)
                    weight_gradient = grad_opacity[ray]
                    for c in range(len(zeros)):
                        weight_gradient += grad_colors[c] * values[c]
                    alphas[k], transmittances[k], weight_gradients[k] = (
                        values[0],
                        transmittance,
                        weight_gradient,
                    )
                    transmittance = _attenuate(transmittance, values[0], one, tiny)
                if slab != here:
                    if here >= 0:
                        runs[chunk, number - 1, 1] = first + k
                    if slab >= 0:
                        runs[chunk, number, 0], runs[chunk, number, 2] = first + k, slab
                        counts[chunk, slab] += 1
                        number += 1
                    here = slab
            if here >= 0:
                runs[chunk, number - 1, 1] = first + samples
            _backpropagate(
                alphas, transmittances, weight_gradients, runs[chunk], number, first, sample_gradients
            )


@numba.njit(cache=True, error_model="numpy", inline="always")
def _backpropagate(alphas, transmittances, weight_gradients, runs, number, first, sample_gradients):
    """Compute the gradients of the alphas of one ray from those of the weights, last sample first; see `composite`."""
    rest, one = alphas.dtype.type(0), alphas.dtype.type(1)
    while number > 0 and runs[number - 1, 0] >= first:
        number -= 1
        for n in range(runs[number, 1] - 1, runs[number, 0] - 1, -1):
            k = n - first
            sample_gradients[n, 0] = transmittances[k] * (weight_gradients[k] - rest)
            sample_gradients[n, 1] = transmittances[k] * alphas[k]
            rest = alphas[k] * weight_gradients[k] + (one - alphas[k]) * rest


@numba.njit(cache=True, parallel=True)
def _sort(runs, counts):
    """Return the runs sorted by slab, then chunk, and the offset of each slab."""
    chunks, slabs = counts.shape
    starts, positions = np.zeros(slabs + 1, np.int64), np.empty_like(counts)
    for slab in range(slabs):
        starts[slab + 1] = starts[slab]
        for chunk in range(chunks):
            positions[chunk, slab] = starts[slab + 1]
            starts[slab + 1] += counts[chunk, slab]
    order = np.empty((starts[-1], 2), np.int32)
    for chunk in numba.prange(chunks):
        for number in range(counts[chunk].sum()):
            first, last, slab = runs[chunk, number]
            position = positions[chunk, slab]
            order[position, 0], order[position, 1] = first, last
            positions[chunk, slab] += 1
    return order, starts


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath=RELAXED)
def _scatter(
    origins,
    directions,
    distances,
    grad_color,
    start,
    zeros,
    sample_gradients,
    order,
    starts,
    parity,
    grad_grid,
):
    depth, height, width, _ = grad_grid.shape
    slabs, samples = len(starts) - 1, distances.shape[1]
    half = grad_grid.dtype.type(0.5)
    for pair in numba.prange((slabs + 1 - parity) // 2):
        slab = 2 * pair + parity
        for position in range(starts[slab], starts[slab + 1]):
            first, last = order[position]
            ray, k = start + first // samples, first % samples
            own, grad_colors = (
                distances[ray if len(distances) > 1 else 0],
                _grad_colors(grad_color, ray, zeros),
            )
            for n in range(first, last):
                x, y, z = _at(origins, directions, ray, own[k + n - first])
                rows, weights = corners(x, y, z, depth, height, width, half)
                gradient = tuple_setitem(grad_colors, 0, sample_gradients[n, 0])
                for c in range(1, len(zeros)):
                    gradient = tuple_setitem(gradient, c, sample_gradients[n, 1] * grad_colors[c])
                add(grad_grid, rows, weights, gradient)
