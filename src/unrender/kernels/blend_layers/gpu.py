"""Blending; one thread per pixel."""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import TORCH_TYPES, Precision, launch, per_precision
from unrender.kernels.blend_layers import reference


def forward(
    colors: Tensor,
    depth: Tensor,
    squared: Tensor,
    face_ids: Tensor,
    near: Tensor,
    far: Tensor,
    background: Tensor,
    sharpness: float,
    gamma: float,
) -> Tensor:
    inputs = [t.contiguous() for t in (colors, depth, squared, face_ids.int(), near, far, background)]
    pixels = colors.new_empty(*colors.shape[:-2], colors.shape[-1] + 1)
    launch(blend_kernels(colors.dtype).blend, colors.shape[:-2].numel(), *inputs, sharpness, gamma, pixels)
    return pixels


def backward(
    colors: Tensor,
    depth: Tensor,
    squared: Tensor,
    face_ids: Tensor,
    near: Tensor,
    far: Tensor,
    background: Tensor,
    pixels: Tensor,
    sharpness: float,
    gamma: float,
    grad_output: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = [
        t.contiguous() for t in (colors, depth, squared, face_ids.int(), near, far, pixels, grad_output)
    ]
    gradients = [torch.empty_like(t) for t in inputs[:3]]
    count = colors.shape[:-2].numel()
    launch(blend_kernels(colors.dtype).blend_backward, count, *inputs, sharpness, gamma, *gradients)
    return gradients[0], gradients[1], gradients[2]


def depth_extent(depth: Tensor, face_ids: Tensor) -> tuple[Tensor, Tensor]:
    near, far = (depth.new_full((depth.shape[:-3].numel(),), end) for end in (torch.inf, -torch.inf))
    size = (depth.shape[:-1].numel(), depth.shape[-1])
    launch(
        blend_kernels(depth.dtype).measure, size, depth.contiguous(), face_ids.int().contiguous(), near, far
    )
    return near, far


@per_precision("blend_layers")
def blend_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar = types.scalar
    zero, one, epsilon, infinite = scalar(0.0), scalar(1.0), scalar(reference.EPSILON), scalar(wp.inf)
    widening, tiny = scalar(reference.WIDENING), scalar(torch.finfo(TORCH_TYPES[types.scalar]).tiny)

    @types.kernel
    def measure(
        depth: wp.array2d(dtype=scalar),
        face_ids: wp.array2d(dtype=wp.int32),
        near: wp.array(dtype=scalar),
        far: wp.array(dtype=scalar),
    ):
        """Lower `near` and raise `far` to the depth of a layer."""
        p, k = wp.tid()
        image, z = p // (depth.shape[0] // near.shape[0]), depth[p, k]
        if face_ids[p, k] >= 0:
            if z < near[image]:  # mostly not: spares the atomic operation
                wp.atomic_min(near, image, z)
            if z > far[image]:
                wp.atomic_max(far, image, z)

    @wp.func
    def sigmoid(x: scalar):
        e = wp.exp(-wp.abs(x))
        return wp.where(x >= zero, one, e) / (one + e)

    @wp.func
    def range_of(near: scalar, far: scalar):
        """Return the range as `reference.positive_range` does."""
        low, high = wp.where(near == infinite, zero, near), wp.where(far == -infinite, one, far)
        return low, wp.max(high, low * widening + tiny)

    @wp.func
    def closeness(depth: scalar, near: scalar, far: scalar):
        return (far - depth) / (far - near)

    @wp.func
    def nearest(
        depth: wp.array2d(dtype=scalar),
        face_ids: wp.array2d(dtype=wp.int32),
        near: scalar,
        far: scalar,
        p: int,
    ):
        """Return the closeness of the nearest layer."""
        best = scalar(epsilon)
        for k in range(depth.shape[1]):
            if face_ids[p, k] >= 0:
                best = wp.max(best, closeness(depth[p, k], near, far))
        return best

    @wp.func
    def weight_of(squared: scalar, depth: scalar, near: scalar, far: scalar, best: scalar, gamma: scalar):
        """Return D exp(z / γ), of which `squared` is in units of σ."""
        return sigmoid(-squared) * wp.exp((closeness(depth, near, far) - best) / gamma)

    @types.kernel
    def blend(
        colors: wp.array3d(dtype=scalar),
        depth: wp.array2d(dtype=scalar),
        squared: wp.array2d(dtype=scalar),
        face_ids: wp.array2d(dtype=wp.int32),
        near: wp.array(dtype=scalar),
        far: wp.array(dtype=scalar),
        background: wp.array(dtype=scalar),
        sharpness: scalar,
        gamma: scalar,
        pixels: wp.array2d(dtype=scalar),
    ):
        p = wp.tid()
        image = p // (depth.shape[0] // near.shape[0])
        low, high = range_of(near[image], far[image])
        best = nearest(depth, face_ids, low, high, p)
        background_weight = wp.max(wp.exp((epsilon - best) / gamma), epsilon)
        total, log_open = scalar(background_weight), scalar(0.0)
        channels = colors.shape[2]
        for channel in range(channels):
            pixels[p, channel] = background_weight * background[channel]
        for k in range(depth.shape[1]):
            if face_ids[p, k] >= 0:
                x = squared[p, k] * sharpness
                weight = weight_of(x, depth[p, k], low, high, best, gamma)
                total += weight
                log_open += wp.min(x, zero) - wp.log(one + wp.exp(-wp.abs(x)))
                for channel in range(channels):
                    pixels[p, channel] = pixels[p, channel] + weight * colors[p, k, channel]
        for channel in range(channels):
            pixels[p, channel] = pixels[p, channel] / total
        pixels[p, channels] = one - wp.exp(log_open)

    @types.kernel
    def blend_backward(
        colors: wp.array3d(dtype=scalar),
        depth: wp.array2d(dtype=scalar),
        squared: wp.array2d(dtype=scalar),
        face_ids: wp.array2d(dtype=wp.int32),
        near: wp.array(dtype=scalar),
        far: wp.array(dtype=scalar),
        pixels: wp.array2d(dtype=scalar),
        grad_output: wp.array2d(dtype=scalar),
        sharpness: scalar,
        gamma: scalar,
        grad_colors: wp.array3d(dtype=scalar),
        grad_depth: wp.array2d(dtype=scalar),
        grad_squared: wp.array2d(dtype=scalar),
    ):
        p = wp.tid()
        image = p // (depth.shape[0] // near.shape[0])
        low, high = range_of(near[image], far[image])
        best = nearest(depth, face_ids, low, high, p)
        total = wp.max(wp.exp((epsilon - best) / gamma), epsilon)
        for k in range(depth.shape[1]):
            if face_ids[p, k] >= 0:
                total += weight_of(squared[p, k] * sharpness, depth[p, k], low, high, best, gamma)
        channels = colors.shape[2]
        grad_open = (one - pixels[p, channels]) * grad_output[p, channels]
        for k in range(depth.shape[1]):
            weight, grad_closeness, covered = scalar(0.0), scalar(0.0), scalar(0.0)
            if face_ids[p, k] >= 0:
                x = squared[p, k] * sharpness
                covered = sigmoid(-x)
                weight = weight_of(x, depth[p, k], low, high, best, gamma) / total
            for channel in range(channels):
                grad_colors[p, k, channel] = grad_output[p, channel] * weight
                grad_closeness += grad_output[p, channel] * (colors[p, k, channel] - pixels[p, channel])
            grad_closeness = grad_closeness * weight
            grad_depth[p, k] = -grad_closeness / (gamma * (high - low))
            grad_squared[p, k] = -sharpness * (grad_closeness * (one - covered) + grad_open * covered)

    return SimpleNamespace(measure=measure, blend=blend, blend_backward=blend_backward)
