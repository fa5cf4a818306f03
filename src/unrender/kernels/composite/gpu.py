"""Volume rendering: one thread per ray for the transmittance, one per channel of each ray for the sums.

In the backward pass, R_i is the derivative of the loss with respect to the transmittance in front of sample i: with g_i
the gradient of weight i and h that of the final transmittance, R_n = h and R_i = g_i alpha_i + (1 − alpha_i) R_i+1; the
gradient of alpha_i is T_i (g_i − R_i+1). There is no division, so that opaque samples need no special case. Sums have a
fixed order.
"""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision

Given = tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor]


def forward(
    density: Tensor,
    lengths: Tensor | None,
    color: Tensor,
    distances: Tensor | None,
    offsets: Tensor,
    stop_below: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rays, channels, kernels = len(offsets) - 1, color.shape[1], _kernels(density.dtype)
    density, lengths, color, distances, offsets = _contiguous(density, lengths, color, distances, offsets)
    weights, transmittance = torch.zeros_like(density), density.new_empty(rays)
    total = density.new_empty(rays, channels + 2)
    settings = (lengths is not None, stop_below)
    launch(kernels.compute_weights, rays, density, lengths, offsets, *settings, weights, transmittance)
    launch(kernels.accumulate, (rays, channels + 2), weights, color, distances, offsets, total)
    return (
        weights,
        total[:, channels].clone(),
        transmittance,
        total[:, :channels].contiguous(),
        total[:, -1].clone(),
    )


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
    given = _contiguous(density, lengths, color, distances, offsets)
    gradients = [
        torch.zeros_like(t) if t is not None and needed else None
        for t, needed in zip(given[:4], needs_grad, strict=True)
    ]
    scratch = torch.empty_like(given[0])
    upstream = [None if t is None else t.contiguous() for t in grad_outputs]
    settings = (lengths is not None, stop_below)
    launch(
        _kernels(density.dtype).backward, len(offsets) - 1, *given, *settings, *upstream, scratch, *gradients
    )
    return tuple(gradients)


def _contiguous(
    density: Tensor, lengths: Tensor | None, color: Tensor, distances: Tensor | None, offsets: Tensor
) -> Given:
    return (
        density.contiguous(),
        None if lengths is None else lengths.contiguous(),
        color.contiguous(),
        None if distances is None else distances.contiguous(),
        offsets.long().contiguous(),
    )


@per_precision("composite")
def _kernels(precision: Precision) -> SimpleNamespace:
    scalar, vec2 = precision.scalar, precision.vec2
    one_row, rows, bounds = wp.array(dtype=scalar), wp.array2d(dtype=scalar), wp.array(dtype=wp.int64)

    @wp.func
    def absorb(density: one_row, lengths: one_row, has_lengths: bool, k: int):
        """Return alpha and transmittance of a sample; alpha without loss of precision for thin ones (Kahan)."""
        one = scalar(1.0)
        if not has_lengths:
            return vec2(density[k], one - density[k])
        depth = density[k] * lengths[k]
        through = wp.exp(-depth)
        alpha = one - through
        if through == one:
            alpha = depth
        elif alpha < one:  # false for NaN
            alpha = -alpha * depth / wp.log(through)
        return vec2(alpha, through)

    @precision.kernel
    def compute_weights(
        density: one_row,
        lengths: one_row,
        offsets: bounds,
        has_lengths: bool,
        stop_below: scalar,
        weights: one_row,
        transmittance: one_row,
    ):
        ray = wp.tid()
        remaining = scalar(1.0)
        for k in range(int(offsets[ray]), int(offsets[ray + 1])):
            if wp.abs(remaining) < stop_below:
                break
            absorbed = absorb(density, lengths, has_lengths, k)
            weights[k] = remaining * absorbed[0]
            remaining *= absorbed[1]
        transmittance[ray] = remaining

    @precision.kernel
    def accumulate(weights: one_row, color: rows, distances: one_row, offsets: bounds, total: rows):
        """Fill Σ weight · color, Σ weight and Σ weight · distance of each ray."""
        ray, channel = wp.tid()
        value, channels = scalar(0.0), color.shape[1]
        for k in range(int(offsets[ray]), int(offsets[ray + 1])):
            if channel < channels:
                value += weights[k] * color[k, channel]
            elif channel == channels:
                value += weights[k]
            elif distances.shape[0] > 0:
                value += weights[k] * distances[k]
        total[ray, channel] = value

    @precision.kernel
    def backward(
        density: one_row,
        lengths: one_row,
        color: rows,
        distances: one_row,
        offsets: bounds,
        has_lengths: bool,
        stop_below: scalar,
        grad_weights: one_row,
        grad_opacity: one_row,
        grad_transmittance: one_row,
        grad_total: rows,
        grad_distance: one_row,
        transmittances: one_row,
        grad_density: one_row,
        grad_lengths: one_row,
        grad_color: rows,
        grad_distances: one_row,
    ):
        ray = wp.tid()
        begin, end = int(offsets[ray]), int(offsets[ray + 1])
        transmittance, count = scalar(1.0), int(0)
        for k in range(begin, end):
            if wp.abs(transmittance) < stop_below:
                break
            transmittances[k] = transmittance
            transmittance *= absorb(density, lengths, has_lengths, k)[1]
            count += 1
        grad_sum, grad_mean, rest = scalar(0.0), scalar(0.0), scalar(0.0)
        if grad_opacity.shape[0] > 0:
            grad_sum = grad_opacity[ray]
        if grad_distance.shape[0] > 0 and distances.shape[0] > 0:
            grad_mean = grad_distance[ray]
        if grad_transmittance.shape[0] > 0:
            rest = grad_transmittance[ray]
        channels = grad_total.shape[1]
        for i in range(count):
            k = begin + count - 1 - i
            absorbed, front = absorb(density, lengths, has_lengths, k), transmittances[k]
            grad_weight = grad_sum
            if grad_mean != scalar(0.0):
                grad_weight += grad_mean * distances[k]
            if grad_weights.shape[0] > 0:
                grad_weight += grad_weights[k]
            for channel in range(channels):
                grad_weight += grad_total[ray, channel] * color[k, channel]
            grad_alpha = front * (grad_weight - rest)
            rest = grad_weight * absorbed[0] + absorbed[1] * rest
            if has_lengths:
                grad_alpha *= absorbed[1]
                if grad_density.shape[0] > 0:
                    grad_density[k] = grad_alpha * lengths[k]
                if grad_lengths.shape[0] > 0:
                    grad_lengths[k] = grad_alpha * density[k]
            elif grad_density.shape[0] > 0:
                grad_density[k] = grad_alpha
            if grad_distances.shape[0] > 0:
                grad_distances[k] = front * absorbed[0] * grad_mean
            if grad_color.shape[0] > 0:
                for channel in range(channels):
                    grad_color[k, channel] = front * absorbed[0] * grad_total[ray, channel]

    return SimpleNamespace(compute_weights=compute_weights, accumulate=accumulate, backward=backward)
