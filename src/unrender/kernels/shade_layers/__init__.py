"""Phong shading of the layers of pixels, from attributes of vertices to colors."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender.kernels._dispatch import implementation
from unrender.kernels.shade_layers import cpu, reference


def is_fused(points: Tensor) -> bool:
    """Return whether `shade_layers` is faster than an operation for each step of shading on this device."""
    return implementation("shade_layers", points.device) not in (None, cpu)


def shade_layers(
    vertices: Tensor,
    normals: Tensor,
    colors: Tensor,
    faces: Tensor,
    face_ids: Tensor,
    barycentric: Tensor,
    camera_from_world: Tensor,
    lights: Tensor,
    perspective: bool,
    two_sided: bool,
) -> Tensor:
    """Shade fragments `[*batch height width layers]` to colors `[… channels]`; see the reference.

    Differentiable in: vertices, normals, colors, barycentric (on a GPU, not twice).
    """
    arguments = (vertices, normals, colors, faces, face_ids, barycentric, camera_from_world, lights)
    if not is_fused(vertices):
        return reference.forward(*arguments, perspective, two_sided)
    shaded: Tensor = _Shade.apply(*arguments, perspective, two_sided)
    return shaded


class _Shade(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        fast = implementation("shade_layers", arguments[0].device)
        assert fast is not None
        ctx.fast, ctx.settings = fast, arguments[8:]
        ctx.save_for_backward(*arguments[:8])
        shaded: Tensor = fast.forward(*arguments)
        return shaded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        needs_colors = ctx.needs_input_grad[2]
        gradients = ctx.fast.backward(*ctx.saved_tensors, *ctx.settings, grad_output, needs_colors)
        grad_vertices, grad_normals, colors, grad_barycentric = gradients
        return grad_vertices, grad_normals, colors, None, None, grad_barycentric, *[None] * 4
