"""Reflection of one light at surface points (Phong 1975)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender.kernels._dispatch import implementation
from unrender.kernels.reflect import cpu, reference


def reflect(
    normals: Tensor,
    directions: Tensor,
    views: Tensor,
    colors: Tensor,
    diffuse: Tensor | float,
    specular: Tensor | float,
    shininess: Tensor | float,
) -> Tensor:
    """Compute the diffuse and specular reflection of a light `[points channels]`; see the reference.

    Differentiable in: all (on a GPU, not twice).
    """
    arguments = (normals, directions, views, colors, diffuse, specular, shininess)
    if implementation("reflect", colors.device) in (None, cpu):
        return reference.forward(*arguments)
    reflected: Tensor = _Reflect.apply(*arguments)
    return reflected


class _Reflect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        fast = implementation("reflect", arguments[0].device)
        assert fast is not None
        ctx.fast = fast
        ctx.numbers = [None if isinstance(t, Tensor) else t for t in arguments]
        ctx.save_for_backward(*(t if isinstance(t, Tensor) else None for t in arguments))
        reflected: Tensor = fast.forward(*arguments)
        return reflected

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.saved_tensors, ctx.numbers, strict=True)
        arguments = [number if tensor is None else tensor for tensor, number in pairs]
        gradients: tuple[Tensor | None, ...] = ctx.fast.backward(*arguments, grad_output)
        return gradients
