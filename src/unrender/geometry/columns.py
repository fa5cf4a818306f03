"""Vectors stored as columns, `[... 3 n]`: each coordinate is contiguous, and every sum has a fixed order.

In this layout, gathering vertices by index has a backward pass of one ordered sum per coordinate, and `ordered_sum`
reduces in blocks of fixed size: values and gradients are bit-identical for any number of threads.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from unrender.kernels.scatter_sum import gather_columns, scatter_sum

__all__ = [
    "as_columns",
    "as_rows",
    "cross",
    "dot",
    "gather_columns",
    "norm",
    "normalize",
    "ordered_sum",
    "scatter_sum",
]


def as_columns(vectors: Tensor) -> Tensor:
    """Transpose rows of coordinates to contiguous columns."""
    return vectors.mT.contiguous()


def as_rows(columns: Tensor) -> Tensor:
    """Transpose columns back to contiguous rows of coordinates."""
    return columns.mT.contiguous()


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Compute the cross product of columns."""
    (ax, ay, az), (bx, by, bz) = a.unbind(-2), b.unbind(-2)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -2)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Compute the inner product of columns."""
    return (a * b).sum(-2)


def norm(columns: Tensor) -> Tensor:
    """Compute the length of columns; the gradient is zero where the length is zero."""
    length: Tensor = _Norm.apply(columns)  # type: ignore[no-untyped-call]
    return length


class _Norm(torch.autograd.Function):
    """Uses 1 / √: `torch.sqrt` starts all threads for 2,048 numbers or more, which costs more than it saves."""

    @staticmethod
    def forward(ctx: Any, columns: Tensor) -> Tensor:
        squared = dot(columns, columns)
        length = squared * torch.where(squared > 0, squared, 1).rsqrt()
        ctx.save_for_backward(columns, length)
        return length

    @staticmethod
    def backward(ctx: Any, grad_length: Tensor) -> Tensor:
        columns, length = ctx.saved_tensors
        gradient: Tensor = columns * (grad_length / torch.where(length > 0, length, torch.inf)).unsqueeze(-2)
        return gradient


def normalize(columns: Tensor) -> Tensor:
    """Divide columns by their length; zero, with zero gradient, if that is below 1e-15 (float64: 1e-150)."""
    length = norm(columns)
    min_length = 1e4 * torch.finfo(length.dtype).tiny ** 0.5  # above this, gradients do not overflow
    return columns / torch.where(length > min_length, length, torch.inf).unsqueeze(-2)


def ordered_sum(values: Tensor) -> Tensor:
    """Sum over the last axis in blocks of 1,024, so that the order does not depend on the number of threads."""
    blocks = -(-values.shape[-1] // 1024)
    padded = pad(values, (0, blocks * 1024 - values.shape[-1]))
    return padded.view(*values.shape[:-1], blocks, 1024).sum(-1).sum(-1)
