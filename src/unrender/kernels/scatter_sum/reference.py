"""Reference implementation of scatter-add."""

from torch import Tensor


def forward(columns: Tensor, index: Tensor, size: int) -> Tensor:
    """Sum the columns `[*batch axes m]` that share an index, `[*batch m]` or `[m]`, into `size` columns.

    On a CPU torch adds them in their order; on a GPU, the order depends on the scheduling of threads.
    """
    index = expand_index(columns, index)
    return columns.new_zeros(*columns.shape[:-1], size).scatter_add(-1, index, columns)


def expand_index(columns: Tensor, index: Tensor) -> Tensor:
    """Expand an index to the axes of the columns, without copies."""
    return index.long().unsqueeze(-2).expand(*columns.shape[:-1], index.shape[-1])
