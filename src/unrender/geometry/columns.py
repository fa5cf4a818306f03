"""Vectors stored as columns, `[... 3 n]`: each coordinate is contiguous, and every sum has a fixed order.

In this layout, gathering vertices by index has a backward pass of one ordered sum per coordinate, and `ordered_sum`
reduces in blocks of fixed size: values and gradients are bit-identical for any number of threads.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from unrender.kernels._dispatch import can_ask
from unrender.kernels.normalize import norm, normalize
from unrender.kernels.scatter_sum import gather_columns, scatter_sum

__all__ = [
    "as_columns",
    "as_rows",
    "cross",
    "dot",
    "gather_columns",
    "norm",
    "normalize",
    "normalize_rows",
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


def normalize_rows(rows: Tensor) -> Tensor:
    """Divide rows `[... axes]` by their length, as `normalize` does columns."""
    return normalize(rows.unsqueeze(-1)).squeeze(-1)


def ordered_sum(values: Tensor) -> Tensor:
    """Sum over the last axis in blocks of 1,024, so that the order does not depend on the number of threads.

    On a GPU, the order of torch's own sum is fixed.
    """
    if not can_ask(values):
        return values.sum(-1)
    blocks = -(-values.shape[-1] // 1024)
    padded = pad(values, (0, blocks * 1024 - values.shape[-1]))
    return padded.view(*values.shape[:-1], blocks, 1024).sum(-1).sum(-1)
