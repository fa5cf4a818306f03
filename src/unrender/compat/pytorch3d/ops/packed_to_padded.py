"""Conversions between packed and padded rows."""

from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.geometry.ragged import packed_from_padded, padded_from_packed


def packed_to_padded(inputs: Tensor, first_idxs: Tensor, max_size: int) -> Tensor:
    """Pad packed rows [F, ...] with zeros: [N, max_size, ...]."""
    return padded_from_packed(inputs, first_idxs, max_size)


def padded_to_packed(inputs: Tensor, first_idxs: Tensor, num_inputs: int, max_size_dim: int = 1) -> Tensor:
    """Return the rows of padded members [N, max_size, ...], whose rows are along `max_size_dim`, packed."""
    return packed_from_padded(inputs.movedim(max_size_dim, 1), first_idxs, num_inputs)


__getattr__ = refuse_unknown(__name__)
