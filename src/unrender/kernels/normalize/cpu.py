"""On a CPU, this is the reference in plain torch, which is differentiable any number of times."""

import torch
from torch import Tensor

from unrender.kernels.normalize import reference

__all__ = ["backward", "forward"]
forward = reference.forward


def backward(
    columns: Tensor, lengths: Tensor, grad_units: Tensor | None, grad_lengths: Tensor | None
) -> Tensor:
    vectors = columns.detach().requires_grad_()
    with torch.enable_grad():
        results = forward(vectors)
    upstream = [
        torch.zeros_like(result) if grad is None else grad
        for grad, result in zip((grad_units, grad_lengths), results, strict=True)
    ]
    (gradient,) = torch.autograd.grad(results, vectors, upstream)
    return gradient
