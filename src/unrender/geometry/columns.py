"""Vectors stored as columns, `[... 3 n]`: each coordinate is contiguous, and every sum has a fixed order.

In this layout, gathering vertices by index has a backward pass of one ordered sum per coordinate, and `ordered_sum`
reduces in blocks of fixed size: values and gradients are bit-identical for any number of threads.
"""

import torch
from torch import Tensor

from unrender.kernels._columns import as_columns, as_rows, dot, edge_vectors, mean, ordered_sum
from unrender.kernels.normalize import norm, normalize
from unrender.kernels.scatter_sum import gather_columns, scatter_sum

__all__ = [
    "as_columns",
    "as_rows",
    "cross",
    "dot",
    "edge_vectors",
    "gather_columns",
    "mean",
    "norm",
    "normalize",
    "normalize_rows",
    "ordered_sum",
    "scatter_sum",
]


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Compute the cross product of columns."""
    (ax, ay, az), (bx, by, bz) = a.unbind(-2), b.unbind(-2)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -2)


def normalize_rows(rows: Tensor) -> Tensor:
    """Divide rows `[... axes]` by their length, as `normalize` does columns."""
    return normalize(rows.unsqueeze(-1)).squeeze(-1)
