"""Vectors stored as columns, `[... 3 n]`: each coordinate is contiguous, and every sum has a fixed order."""

from torch import Tensor
from torch.nn.functional import pad

from unrender.kernels._dispatch import can_read
from unrender.kernels.scatter_sum import gather_columns


def as_columns(vectors: Tensor) -> Tensor:
    """Transpose rows of coordinates to contiguous columns."""
    return vectors.mT.contiguous()


def as_rows(columns: Tensor) -> Tensor:
    """Transpose columns back to contiguous rows of coordinates."""
    return columns.mT.contiguous()


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Compute the inner product of columns."""
    return (a * b).sum(-2)


def edge_vectors(columns: Tensor, edges: Tensor) -> Tensor:
    """Compute the vectors along edges [edges, 2], in columns."""
    start, end = edges.unbind(1)
    return gather_columns(columns, end) - gather_columns(columns, start)


def ordered_sum(values: Tensor) -> Tensor:
    """Sum over the last axis in blocks of 1,024, so that the order does not depend on the number of threads.

    On a GPU, the order of torch's own sum is fixed.
    """
    if not can_read(values):
        return values.sum(-1)
    blocks = -(-values.shape[-1] // 1024)
    padded = pad(values, (0, blocks * 1024 - values.shape[-1]))
    return padded.view(*values.shape[:-1], blocks, 1024).sum(-1).sum(-1)


def mean(values: Tensor) -> Tensor:
    """Average over the last axis in a fixed order, then over the batch; 0 of none."""
    means = ordered_sum(values) / max(values.shape[-1], 1)
    return means.mean() if means.dim() else means
