"""Blending of the layers of pixels by coverage and depth (Soft Rasterizer)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender.kernels._dispatch import implementation
from unrender.kernels.blend_layers import reference


def blend_layers(
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
    """Blend the layers of pixels to colors and alpha `[pixels channels+1]`; see the reference.

    On a GPU, `pixels` may be several axes, those of images.
    Differentiable in: colors, depth, squared (not twice).
    """
    face_ids = face_ids.int()  # as they are rasterized; PyTorch3D's are int64
    arguments = (colors, depth, squared, face_ids, near, far, background, sharpness, gamma)
    if implementation("blend_layers", colors.device) is None:
        layers = [t.flatten(0, -2) for t in (depth, squared, face_ids)]
        ends = (near, far, background, sharpness, gamma)
        flat = reference.forward(colors.flatten(0, -3), layers[0], layers[1], layers[2], *ends)
        return flat.view(*colors.shape[:-2], -1)
    pixels: Tensor = _Blend.apply(*arguments)
    return pixels


def depth_extent(depth: Tensor, face_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the near and far depth of the layers of each image, for `blend_layers`.

    Not differentiable.
    """
    fast = implementation("blend_layers", depth.device)
    find = getattr(fast, "depth_extent", reference.depth_extent)
    near, far = find(depth.detach() if depth.requires_grad else depth, face_ids)
    return near, far


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        fast = implementation("blend_layers", arguments[0].device)
        assert fast is not None
        ctx.fast, ctx.settings = fast, arguments[7:]
        pixels: Tensor = fast.forward(*arguments)
        ctx.save_for_backward(*arguments[:7], pixels)
        return pixels

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return *ctx.fast.backward(*ctx.saved_tensors, *ctx.settings, grad_output), *[None] * 6
