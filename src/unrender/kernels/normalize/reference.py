"""Reference implementation of the lengths and directions of vectors."""

from typing import Any

import torch
from torch import Tensor


def forward(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return vectors [... axes n] divided by their length, and the lengths [... n].

    Below `min_length`, directions are zero, with zero gradient; so is the gradient of a length of zero.
    """
    lengths: Tensor = _Norm.apply(columns)
    return columns / torch.where(lengths > min_length(columns), lengths, torch.inf).unsqueeze(-2), lengths


def norm(columns: Tensor) -> Tensor:
    """Return the lengths only."""
    lengths: Tensor = _Norm.apply(columns)
    return lengths


def min_length(columns: Tensor) -> float:
    """Return the length above which gradients of directions do not overflow: 1e-15, in double precision 1e-150."""
    return float(1e4 * torch.finfo(columns.dtype).tiny ** 0.5)


class _Norm(torch.autograd.Function):
    """Uses 1 / √: `torch.sqrt` starts all threads for 2,048 numbers or more, which costs more than it saves."""

    @staticmethod
    def forward(ctx: Any, columns: Tensor) -> Tensor:
        squared = (columns * columns).sum(-2)
        length = squared * torch.where(squared > 0, squared, 1).rsqrt()
        ctx.save_for_backward(columns, length)
        return length

    @staticmethod
    def backward(ctx: Any, grad_length: Tensor) -> Tensor:
        columns, length = ctx.saved_tensors
        gradient: Tensor = columns * (grad_length / torch.where(length > 0, length, torch.inf)).unsqueeze(-2)
        return gradient
