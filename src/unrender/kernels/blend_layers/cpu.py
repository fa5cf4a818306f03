"""Blending, parallel over pixels."""

import math

import numba
from torch import Tensor

from unrender.kernels._batch import allocate, array
from unrender.kernels._dispatch import cpu_threads
from unrender.kernels.blend_layers.reference import EPSILON

BLOCK = 1024


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
    inputs = [array(t) for t in (colors, depth, squared, face_ids, near, far, background)]
    pixels = allocate(colors, len(colors), colors.shape[-1] + 1)
    scalar = inputs[0].dtype.type
    with cpu_threads(face_ids.numel()):
        _blend(*inputs, scalar(sharpness), scalar(gamma), pixels.numpy())
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
    inputs = [array(t) for t in (colors, depth, squared, face_ids, near, far, pixels, grad_output)]
    gradients = [allocate(t, *t.shape) for t in (colors, depth, squared)]
    scalar = inputs[0].dtype.type
    with cpu_threads(face_ids.numel()):
        _blend_backward(*inputs, scalar(sharpness), scalar(gamma), *(g.numpy() for g in gradients))
    return gradients[0], gradients[1], gradients[2]


@numba.njit(cache=True, inline="always")
def _sigmoid(x):
    e = math.exp(-abs(x))
    return (1 if x >= 0 else e) / (1 + e)


@numba.njit(cache=True, inline="always")
def _nearest(depth, face_ids, near, far, p):
    """Return the closeness of the nearest layer."""
    scalar, image = depth.dtype.type, p * len(near) // len(depth)
    best = scalar(EPSILON)
    for k in range(depth.shape[1]):
        if face_ids[p, k] >= 0:
            best = max(best, (far[image] - depth[p, k]) / (far[image] - near[image]))
    return best


@numba.njit(cache=True, parallel=True)
def _blend(colors, depth, squared, face_ids, near, far, background, sharpness, gamma, pixels):
    channels = colors.shape[2]
    for block in numba.prange((len(depth) + BLOCK - 1) // BLOCK):
        for p in range(block * BLOCK, min(len(depth), (block + 1) * BLOCK)):
            scalar, image = depth.dtype.type, p * len(near) // len(depth)
            best = _nearest(depth, face_ids, near, far, p)
            background_weight = max(scalar(math.exp((scalar(EPSILON) - best) / gamma)), scalar(EPSILON))
            total, log_open = background_weight, scalar(0)
            for channel in range(channels):
                pixels[p, channel] = background_weight * background[channel]
            for k in range(depth.shape[1]):
                if face_ids[p, k] >= 0:
                    x = squared[p, k] * sharpness
                    z = (far[image] - depth[p, k]) / (far[image] - near[image])
                    weight = scalar(_sigmoid(-x) * math.exp((z - best) / gamma))
                    total += weight
                    log_open += scalar(min(x, scalar(0)) - math.log1p(math.exp(-abs(x))))
                    for channel in range(channels):
                        pixels[p, channel] += weight * colors[p, k, channel]
            for channel in range(channels):
                pixels[p, channel] /= total
            pixels[p, channels] = -math.expm1(log_open)


@numba.njit(cache=True, parallel=True)
def _blend_backward(
    colors,
    depth,
    squared,
    face_ids,
    near,
    far,
    pixels,
    grad_output,
    sharpness,
    gamma,
    grad_colors,
    grad_depth,
    grad_squared,
):
    channels = colors.shape[2]
    for block in numba.prange((len(depth) + BLOCK - 1) // BLOCK):
        for p in range(block * BLOCK, min(len(depth), (block + 1) * BLOCK)):
            scalar, image = depth.dtype.type, p * len(near) // len(depth)
            span = far[image] - near[image]
            best = _nearest(depth, face_ids, near, far, p)
            total = max(scalar(math.exp((scalar(EPSILON) - best) / gamma)), scalar(EPSILON))
            for k in range(depth.shape[1]):  # weights are kept where gradients of depth will be
                grad_depth[p, k] = 0
                if face_ids[p, k] >= 0:
                    z = (far[image] - depth[p, k]) / span
                    grad_depth[p, k] = _sigmoid(-squared[p, k] * sharpness) * math.exp((z - best) / gamma)
                total += grad_depth[p, k]
            for k in range(depth.shape[1]):
                weight, grad_closeness = grad_depth[p, k], scalar(0)
                for channel in range(channels):
                    grad_colors[p, k, channel] = grad_output[p, channel] * weight / total
                    grad_closeness += grad_output[p, channel] * (colors[p, k, channel] - pixels[p, channel])
                grad_closeness *= weight / total
                grad_depth[p, k] = -grad_closeness / (gamma * span)
                grad_squared[p, k] = 0
                if face_ids[p, k] >= 0:
                    covered = scalar(_sigmoid(-squared[p, k] * sharpness))
                    grad_open = (1 - pixels[p, channels]) * grad_output[p, channels]
                    grad_squared[p, k] = -sharpness * (grad_closeness * (1 - covered) + grad_open * covered)
