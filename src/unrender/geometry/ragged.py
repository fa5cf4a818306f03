"""Batches of rows of different lengths: packed, one after another, or padded to one length."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError


@checked
def padded_from_packed(
    rows: Float[Tensor, "rows *columns"],  # noqa: F821
    first: Int[Tensor, " members"],
    length: int,
) -> Float[Tensor, "members length *columns"]:
    """Pad packed rows with zeros: member i begins at row `first[i]` and ends where the next one begins.

    Example: `padded_from_packed(points, torch.tensor([0, 5]), 8)` for clouds of 5 and at most 8 points.
    Differentiable in: rows. Raises InputError if a member is longer than `length`.
    """
    counts = _counts(first, len(rows))
    if len(counts) and int(counts.max()) > length:
        raise InputError(
            f"padded_from_packed: `length` should be at least {int(counts.max())}, that of the longest member, "
            f"got {length}"
        )
    step = torch.arange(length, device=rows.device)
    valid = step < counts[:, None]
    if not len(rows):
        return rows.new_zeros(len(first), length, *rows.shape[1:])
    found = rows[torch.where(valid, first[:, None] + step, 0)]
    return torch.where(valid.view(*valid.shape, *[1] * (rows.dim() - 1)), found, 0)


@checked
def packed_from_padded(
    rows: Float[Tensor, "members length *columns"],
    first: Int[Tensor, " members"],
    num_rows: int,
) -> Float[Tensor, "num_rows *columns"]:  # noqa: F821
    """Return the rows of all members one after another: the inverse of `padded_from_packed`.

    Differentiable in: rows.
    """
    counts = _counts(first, num_rows)
    if len(counts) and int(counts.max()) > rows.shape[1]:
        raise InputError(
            f"packed_from_padded: a member has {int(counts.max())} rows, but `rows` have {rows.shape[1]} of each"
        )
    member = torch.arange(len(first), device=rows.device).repeat_interleave(counts)
    step = torch.arange(num_rows, device=rows.device) - first[member]
    return rows[member, step]


def _counts(first: Tensor, num_rows: int) -> Tensor:
    counts = torch.diff(first, append=first.new_tensor([num_rows]))
    if len(counts) and (int(first[0]) != 0 or int(counts.min()) < 0):
        raise InputError("`first` should start with 0, ascend, and end within the rows")
    return counts
