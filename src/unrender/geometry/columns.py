"""Vectors as columns, `[... 3 n]`: each coordinate lies contiguous, and every sum has a fixed order.

Reading vertices by index in this layout goes back as one ordered sum per coordinate, and `ordered_sum` cuts
its terms at fixed places: values and gradients are bit-identical for any number of threads.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad


def as_columns(vectors: Tensor) -> Tensor:
    """Turn rows of coordinates into contiguous columns."""
    return vectors.mT.contiguous()


def as_rows(columns: Tensor) -> Tensor:
    """Turn columns back into contiguous rows of coordinates."""
    return columns.mT.contiguous()


def take(columns: Tensor, index: Tensor) -> Tensor:
    """Read the columns that an index names; the index may have the leading axes of the columns."""
    return columns.gather(-1, _spread(columns, index))


def sum_at(columns: Tensor, index: Tensor, size: int) -> Tensor:
    """Add columns up where an index sends them, in the order of the index; the transpose of `take`."""
    sums = columns.new_zeros(*columns.shape[:-1], size)
    return sums.scatter_add(-1, _spread(columns, index), columns)


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross product of columns."""
    (ax, ay, az), (bx, by, bz) = a.unbind(-2), b.unbind(-2)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -2)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of columns."""
    return (a * b).sum(-2)


def norm(columns: Tensor) -> Tensor:
    """Length of columns; its gradient is zero where the length is."""
    length: Tensor = _Norm.apply(columns)  # type: ignore[no-untyped-call]
    return length


class _Norm(torch.autograd.Function):
    """By 1 / √: torch's √ wakes all threads from 2,048 numbers on, which costs more than the numbers do."""

    @staticmethod
    def forward(ctx: Any, columns: Tensor) -> Tensor:
        squared = dot(columns, columns)
        length = squared * torch.where(squared > 0, squared, 1).rsqrt()
        ctx.save_for_backward(columns, length)
        return length

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        columns, length = ctx.saved_tensors
        slopes: Tensor = columns * (cotangent / torch.where(length > 0, length, torch.inf)).unsqueeze(-2)
        return slopes


def unit(columns: Tensor) -> Tensor:
    """Columns divided by their length; zero, with zero gradient, where that is below 1e-15 (float64: 1e-150)."""
    length = norm(columns)
    shortest = 1e4 * torch.finfo(length.dtype).tiny ** 0.5  # from here on the gradients do not overflow
    return columns / torch.where(length > shortest, length, torch.inf).unsqueeze(-2)


def ordered_sum(values: Tensor) -> Tensor:
    """Sum over the last axis, blocks of 1,024 first: what a thread gets never changes the order."""
    blocks = -(-values.shape[-1] // 1024)
    padded = pad(values, (0, blocks * 1024 - values.shape[-1]))
    return padded.view(*values.shape[:-1], blocks, 1024).sum(-1).sum(-1)


def _spread(columns: Tensor, index: Tensor) -> Tensor:
    return index.long().unsqueeze(-2).expand(*columns.shape[:-1], index.shape[-1])
