"""Gradients of reference implementations, for kernels that need no faster version on a CPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


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
