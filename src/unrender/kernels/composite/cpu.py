"""Volume rendering, parallel over rays; each ray is traversed front to back, and back to front for gradients.

In the backward pass, R_i is the derivative of the loss with respect to the transmittance in front of sample i: with g_i
the gradient of weight i and h that of the final transmittance, R_n = h and R_i = g_i alpha_i + (1 − alpha_i) R_i+1; the
gradient of alpha_i is T_i (g_i − R_i+1). There is no division, so that opaque samples need no special case.
"""

import numba
import numpy as np
from torch import Tensor

from unrender.kernels._batch import allocate
from unrender.kernels._dispatch import cpu_threads
from unrender.kernels._llvm.exponential import absorb

BLOCK = 64
"""Rays per task."""
RUN = 64
"""Samples whose absorption is computed in one vectorized loop."""


def forward(
    density: Tensor,
    lengths: Tensor | None,
    color: Tensor,
    distances: Tensor | None,
    offsets: Tensor,
    stop_below: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rays = len(offsets) - 1
    results = (
        allocate(density, len(density)),
        allocate(density, rays),
        allocate(density, rays),
        allocate(density, rays, color.shape[1]),
        allocate(density, rays),
    )
    arrays = _arrays(density, lengths, color, distances, offsets)
    settings = (lengths is not None, arrays[0].dtype.type(stop_below), _longest(offsets))
    with cpu_threads(len(density)):
        _forward(*arrays, *settings, *(r.numpy() for r in results))
    return results


def backward(
    density: Tensor,
    lengths: Tensor | None,
    color: Tensor,
    distances: Tensor | None,
    offsets: Tensor,
    stop_below: float,
    grad_outputs: tuple[Tensor | None, ...],
    needs_grad: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Compute the gradients of density, lengths, color, distances for which `needs_grad` is true."""
    given = (density, lengths, color, distances)
    gradients = [
        allocate(t, *t.shape) if t is not None and needed else None
        for t, needed in zip(given, needs_grad, strict=True)
    ]
    arrays = _arrays(density, lengths, color, distances, offsets)
    upstream = [_array(t, density.new_empty((0, 0) if i == 3 else 0)) for i, t in enumerate(grad_outputs)]
    results = [_array(t, density.new_empty((0, 0) if i == 2 else 0)) for i, t in enumerate(gradients)]
    settings = (lengths is not None, arrays[0].dtype.type(stop_below), _longest(offsets))
    with cpu_threads(len(density)):
        _backward(*arrays, *settings, *upstream, *results)
    return tuple(gradients)


def _arrays(*tensors):
    return [_array(t, tensors[0].new_empty(0)) for t in tensors]


def _longest(offsets):
    return int(offsets.diff().max()) if len(offsets) > 1 else 0


def _array(tensor, otherwise):
    return (otherwise if tensor is None else tensor).detach().contiguous().numpy()


@numba.njit(cache=True)
def _row(length, like):
    """Allocate one array; loops over the rows of a shared array do not vectorize, and are six times slower."""
    return np.empty(length, like.dtype)


@numba.njit(cache=True, error_model="numpy")
def _transmit(density, lengths, has_lengths, stop_below, alphas, through, transmittances):
    """Compute alphas and transmittances along a ray; return the number of visible samples and the final transmittance.

    Stops at zero transmittance for densities only: the gradient of an opaque alpha depends on the samples behind it.
    """
    zero, transmitted, start, count = density.dtype.type(0), density.dtype.type(1), 0, len(density)
    tiny = density.dtype.type(np.finfo(density.dtype).tiny)
    while start < count and abs(transmitted) >= stop_below and (transmitted != zero or not has_lengths):
        end = min(start + RUN, count)
        if has_lengths:
            for k in range(np.uint64(start), np.uint64(end)):
                alphas[k], through[k] = absorb(density[k] * lengths[k])
        else:
            for k in range(np.uint64(start), np.uint64(end)):
                alphas[k], through[k] = density[k], density.dtype.type(1) - density[k]
        for k in range(np.uint64(start), np.uint64(end)):
            transmittances[k] = transmitted
            transmitted *= through[k]
        if abs(transmittances[end - 1]) < stop_below:
            while abs(transmittances[end - 1]) < stop_below:
                end -= 1
                transmitted = transmittances[end]
            return end, transmitted
        transmitted = zero if abs(transmitted) < tiny else transmitted  # subnormal numbers are slow
        start = end
    return start, transmitted


@numba.njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})  # lets sums vectorize
def _accumulate(weights, color, distances, total):
    """Return Σ weight and Σ weight · distance; fill Σ weight · color."""
    opacity, weighted_distance = weights.dtype.type(0), weights.dtype.type(0)
    for k in range(np.uint64(len(weights))):
        opacity += weights[k]
    for k in range(np.uint64(len(distances))):
        weighted_distance += weights[k] * distances[k]
    if len(total) == 3:
        red, green, blue = opacity * 0, opacity * 0, opacity * 0
        for k in range(np.uint64(len(weights))):
            red += weights[k] * color[k, 0]
            green += weights[k] * color[k, 1]
            blue += weights[k] * color[k, 2]
        total[0], total[1], total[2] = red, green, blue
    else:
        total[:] = 0
        for k in range(np.uint64(len(weights))):
            for channel in range(np.uint64(len(total))):
                total[channel] += weights[k] * color[k, channel]
    return opacity, weighted_distance


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _forward(
    density,
    lengths,
    color,
    distances,
    offsets,
    has_lengths,
    stop_below,
    longest,
    weights,
    opacity,
    transmittance,
    total,
    distance,
):
    rays = len(offsets) - 1
    for block in numba.prange((rays + BLOCK - 1) // BLOCK):
        alphas, through, transmittances = (
            _row(longest, density),
            _row(longest, density),
            _row(longest, density),
        )
        for ray in range(block * BLOCK, min(rays, (block + 1) * BLOCK)):
            own = slice(offsets[ray], offsets[ray + 1])
            weight = weights[own]
            count, transmitted = _transmit(
                density[own], lengths[own], has_lengths, stop_below, alphas, through, transmittances
            )
            for k in range(np.uint64(count)):
                weight[k] = transmittances[k] * alphas[k]
            weight[count:] = 0
            opacity[ray], distance[ray] = _accumulate(
                weight[:count], color[own], distances[own][:count], total[ray]
            )
            transmittance[ray] = transmitted


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def _backpropagate(weight_grads, alphas, through, transmittances, rest, grad_alphas):
    """Compute the gradients of the alphas from those of the weights, last sample first."""
    for k in range(np.uint64(len(weight_grads))):
        grad_alphas[k] = weight_grads[k] * alphas[k]
    for i in range(len(weight_grads) - 1, -1, -1):
        term, grad_alphas[i] = grad_alphas[i], rest
        rest = term + through[i] * rest
    for k in range(np.uint64(len(weight_grads))):
        grad_alphas[k] = transmittances[k] * (weight_grads[k] - grad_alphas[k])


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _backward(
    density,
    lengths,
    color,
    distances,
    offsets,
    has_lengths,
    stop_below,
    longest,
    grad_weights,
    grad_opacity,
    grad_transmittance,
    grad_total,
    grad_distance,
    grad_density,
    grad_lengths,
    grad_color,
    grad_distances,
):
    zero, rays = density.dtype.type(0), len(offsets) - 1
    for block in numba.prange((rays + BLOCK - 1) // BLOCK):
        alphas, through, transmittances = (
            _row(longest, density),
            _row(longest, density),
            _row(longest, density),
        )
        weight_grads, grad_alphas = _row(longest, density), _row(longest, density)
        for ray in range(block * BLOCK, min(rays, (block + 1) * BLOCK)):
            own = slice(offsets[ray], offsets[ray + 1])
            ray_density, ray_lengths, ray_distances, ray_color = (
                density[own],
                lengths[own],
                distances[own],
                color[own],
            )
            count, _ = _transmit(
                ray_density, ray_lengths, has_lengths, stop_below, alphas, through, transmittances
            )
            grad_sum = grad_opacity[ray] if len(grad_opacity) else zero
            grad_mean = grad_distance[ray] if len(grad_distance) and len(distances) else zero
            for k in range(np.uint64(count)):
                weight_grads[k] = grad_sum
            if grad_mean != zero:
                for k in range(np.uint64(count)):
                    weight_grads[k] += grad_mean * ray_distances[k]
            if len(grad_weights):
                grad_weight = grad_weights[own]
                for k in range(np.uint64(count)):
                    weight_grads[k] += grad_weight[k]
            if len(grad_total):
                _add_color(weight_grads[:count], ray_color, grad_total[ray])
            rest = grad_transmittance[ray] if len(grad_transmittance) else zero
            _backpropagate(weight_grads[:count], alphas, through, transmittances, rest, grad_alphas)
            if has_lengths:
                for k in range(np.uint64(count)):
                    grad_alphas[k] *= through[k]
            if len(grad_density):
                target = grad_density[own]
                for k in range(np.uint64(count)):
                    target[k] = grad_alphas[k] * ray_lengths[k] if has_lengths else grad_alphas[k]
                target[count:] = 0
            if len(grad_lengths):
                target = grad_lengths[own]
                for k in range(np.uint64(count)):
                    target[k] = grad_alphas[k] * ray_density[k]
                target[count:] = 0
            if len(grad_distances):
                target = grad_distances[own]
                for k in range(np.uint64(count)):
                    target[k] = transmittances[k] * alphas[k] * grad_mean
                target[count:] = 0
            if len(grad_color):
                _color_gradient(transmittances[:count], alphas, grad_total, ray, grad_color[own])


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def _add_color(weight_grads, color, grad_total):
    """Add the gradient of the weights through the ray's color."""
    if len(grad_total) == 3:
        red, green, blue = grad_total[0], grad_total[1], grad_total[2]
        for k in range(np.uint64(len(weight_grads))):
            weight_grads[k] += red * color[k, 0] + green * color[k, 1] + blue * color[k, 2]
    else:
        for k in range(np.uint64(len(weight_grads))):
            for channel in range(np.uint64(len(grad_total))):
                weight_grads[k] += grad_total[channel] * color[k, channel]


@numba.njit(cache=True, error_model="numpy")
def _color_gradient(transmittances, alphas, grad_total, ray, grad_color):
    """Compute the gradient of the color of each sample."""
    count, channels = len(transmittances) if len(grad_total) else 0, grad_color.shape[1]
    if channels == 3 and count:
        red, green, blue = grad_total[ray, 0], grad_total[ray, 1], grad_total[ray, 2]
        for k in range(np.uint64(count)):
            weight = transmittances[k] * alphas[k]
            grad_color[k, 0], grad_color[k, 1], grad_color[k, 2] = weight * red, weight * green, weight * blue
    else:
        for k in range(np.uint64(count)):
            for channel in range(np.uint64(channels)):
                grad_color[k, channel] = transmittances[k] * alphas[k] * grad_total[ray, channel]
    grad_color[count:] = 0
