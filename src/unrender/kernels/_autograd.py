"""Kernels in torch's autograd: by their own backward, or by differentiating the reference."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def differentiable(fast: ModuleType, *arguments: Any) -> Tensor:
    """Call `fast.forward`; gradients come from `fast.backward`, and cannot be differentiated again.

    `backward` takes the arguments, then what `forward` returned after its result, then the gradient of the result. It
    returns the gradients of the first argument, or of several from the first one on.
    """
    result: Tensor = _Kernel.apply(fast, *arguments)
    return result


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fast: ModuleType, *arguments: Any) -> Tensor:
        result: Tensor
        result, *kept = _as_tuple(fast.forward(*arguments))
        ctx.fast = fast
        ctx.settings = [None if isinstance(argument, Tensor) else argument for argument in arguments]
        ctx.save_for_backward(*(a if isinstance(a, Tensor) else None for a in arguments), *kept)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.settings)
        pairs = zip(ctx.saved_tensors[:count], ctx.settings, strict=True)
        arguments = [setting if tensor is None else tensor for tensor, setting in pairs]
        gradients = _as_tuple(ctx.fast.backward(*arguments, *ctx.saved_tensors[count:], grad_output))
        return None, *gradients, *[None] * (count - len(gradients))


def _as_tuple(found: Tensor | tuple[Any, ...]) -> tuple[Any, ...]:
    return (found,) if isinstance(found, Tensor) else found


def differentiate(
    forward: Callable[..., Tensor | tuple[Tensor, ...]], arguments: tuple[Any, ...], *gradients: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Return the gradient of each floating-point tensor among the arguments, by those of the outputs; else None."""
    is_input = [isinstance(t, Tensor) and t.is_floating_point() for t in arguments]
    given = [
        t.detach().requires_grad_() if needs_grad else t
        for t, needs_grad in zip(arguments, is_input, strict=True)
    ]
    inputs = [t for t, needs_grad in zip(given, is_input, strict=True) if needs_grad]
    with torch.enable_grad():
        result = forward(*given)
    outputs = (result,) if isinstance(result, Tensor) else result
    used = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None]
    found = iter(
        torch.autograd.grad(
            [output for output, _ in used],
            inputs,
            [gradient for _, gradient in used],
            allow_unused=True,
            materialize_grads=True,
        )
    )
    return tuple(next(found) if needs_grad else None for needs_grad in is_input)
