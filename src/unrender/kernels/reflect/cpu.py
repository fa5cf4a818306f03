"""On a CPU, this is the reference in plain torch, which is differentiable any number of times."""

import torch
from torch import Tensor

from unrender.kernels.reflect import reference

__all__ = ["backward", "forward"]
forward = reference.forward


def backward(
    normals: Tensor,
    directions: Tensor,
    views: Tensor,
    colors: Tensor,
    diffuse: Tensor | float,
    specular: Tensor | float,
    shininess: Tensor | float,
    grad_output: Tensor,
) -> tuple[Tensor | None, ...]:
    arguments = [
        t.detach().requires_grad_() if isinstance(t, Tensor) else t
        for t in (normals, directions, views, colors, diffuse, specular, shininess)
    ]
    inputs = [t for t in arguments if isinstance(t, Tensor)]
    with torch.enable_grad():
        reflected = reference.forward(*arguments)  # type: ignore[arg-type]
    gradients = iter(
        torch.autograd.grad(reflected, inputs, grad_output, allow_unused=True, materialize_grads=True)
    )
    return tuple(next(gradients) if isinstance(t, Tensor) else None for t in arguments)
