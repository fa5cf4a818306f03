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
    weights, light = torch.zeros_like(density), density.new_empty(rays)
    total = density.new_empty(rays, channels + 2)
    settings = (lengths is not None, stop_below)
    launch(kernels.weigh, rays, density, lengths, offsets, *settings, weights, light)
    launch(kernels.add_up, (rays, channels + 2), weights, color, distances, offsets, total)
    return weights, total[:, channels].clone(), light, total[:, :channels].contiguous(), total[:, -1].clone()


def backward(
    density: Tensor,
    lengths: Tensor | None,
    color: Tensor,
    distances: Tensor | None,
    offsets: Tensor,
    stop_below: float,
    cotangents: tuple[Tensor | None, ...],
    wanted: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Compute the gradients of density, lengths, color, distances that are `wanted`."""
    given = _contiguous(density, lengths, color, distances, offsets)
    gradients = [
        torch.zeros_like(t) if t is not None and asked else None
        for t, asked in zip(given[:4], wanted, strict=True)
    ]
    scratch = torch.empty_like(given[0])
    slopes = [None if t is None else t.contiguous() for t in cotangents]
    settings = (lengths is not None, stop_below)
    launch(_kernels(density.dtype).go_back, len(offsets) - 1, *given, *settings, *slopes, scratch, *gradients)
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
        """Return what a sample takes away, and what it lets through. Rounding cancels in what Kahan divides."""
        one = scalar(1.0)
        if not has_lengths:
            return vec2(density[k], one - density[k])
        depth = density[k] * lengths[k]
        through = wp.exp(-depth)
        alpha = one - through
        if through == one:
            alpha = depth
        elif alpha < one:  # not so of NaN
            alpha = -alpha * depth / wp.log(through)
        return vec2(alpha, through)

    @precision.kernel
    def weigh(
        density: one_row,
        lengths: one_row,
        offsets: bounds,
        has_lengths: bool,
        stop_below: scalar,
        weights: one_row,
        light: one_row,
    ):
        ray = wp.tid()
        left = scalar(1.0)
        for k in range(int(offsets[ray]), int(offsets[ray + 1])):
            if wp.abs(left) < stop_below:
                break
            taken = absorb(density, lengths, has_lengths, k)
            weights[k] = left * taken[0]
            left *= taken[1]
        light[ray] = left

    @precision.kernel
    def add_up(weights: one_row, color: rows, distances: one_row, offsets: bounds, total: rows):
        """Of each ray, fill Σ weight · color, Σ weight and Σ weight · distance."""
        ray, channel = wp.tid()
        found, channels = scalar(0.0), color.shape[1]
        for k in range(int(offsets[ray]), int(offsets[ray + 1])):
            if channel < channels:
                found += weights[k] * color[k, channel]
            elif channel == channels:
                found += weights[k]
            elif distances.shape[0] > 0:
                found += weights[k] * distances[k]
        total[ray, channel] = found

    @precision.kernel
    def go_back(
        density: one_row,
        lengths: one_row,
        color: rows,
        distances: one_row,
        offsets: bounds,
        has_lengths: bool,
        stop_below: scalar,
        of_weights: one_row,
        of_opacity: one_row,
        of_light: one_row,
        of_total: rows,
        of_distance: one_row,
        entering: one_row,
        to_density: one_row,
        to_lengths: one_row,
        to_color: rows,
        to_distances: one_row,
    ):
        ray = wp.tid()
        begin, end = int(offsets[ray]), int(offsets[ray + 1])
        left, count = scalar(1.0), int(0)
        for k in range(begin, end):
            if wp.abs(left) < stop_below:
                break
            entering[k] = left
            left *= absorb(density, lengths, has_lengths, k)[1]
            count += 1
        base, reach, rest = scalar(0.0), scalar(0.0), scalar(0.0)
        if of_opacity.shape[0] > 0:
            base = of_opacity[ray]
        if of_distance.shape[0] > 0 and distances.shape[0] > 0:
            reach = of_distance[ray]
        if of_light.shape[0] > 0:
            rest = of_light[ray]
        channels = of_total.shape[1]
        for i in range(count):
            k = begin + count - 1 - i
            taken, light = absorb(density, lengths, has_lengths, k), entering[k]
            slope = base
            if reach != scalar(0.0):
                slope += reach * distances[k]
            if of_weights.shape[0] > 0:
                slope += of_weights[k]
            for channel in range(channels):
                slope += of_total[ray, channel] * color[k, channel]
            to_alpha = light * (slope - rest)
            rest = slope * taken[0] + taken[1] * rest
            if has_lengths:
                to_alpha *= taken[1]
                if to_density.shape[0] > 0:
                    to_density[k] = to_alpha * lengths[k]
                if to_lengths.shape[0] > 0:
                    to_lengths[k] = to_alpha * density[k]
            elif to_density.shape[0] > 0:
                to_density[k] = to_alpha
            if to_distances.shape[0] > 0:
                to_distances[k] = light * taken[0] * reach
            if to_color.shape[0] > 0:
                for channel in range(channels):
                    to_color[k, channel] = light * taken[0] * of_total[ray, channel]

    return SimpleNamespace(weigh=weigh, add_up=add_up, go_back=go_back)
