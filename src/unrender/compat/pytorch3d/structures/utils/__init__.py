"""Layouts of tensors of different lengths: list, padded and packed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.errors import InputError


def list_to_padded(
    x: Sequence[Tensor],
    pad_size: Sequence[int] | None = None,
    pad_value: float = 0.0,
    equisized: bool = False,
) -> Tensor:
    """Stack tensors of different sizes, padding with `pad_value`."""
    axes = max((t.dim() for t in x), default=1)
    if pad_size is not None and len(pad_size) != axes:
        raise InputError(
            f"list_to_padded: Pad size must have {axes} numbers, one for each axis, got {pad_size}"
        )
    x = [t.reshape([0] * axes) if t.dim() == 1 and not t.numel() else t for t in x]
    shapes = {tuple(t.shape) for t in x}
    if equisized or (len(shapes) == 1 and pad_size is None):
        return stack(x)
    largest: list[int] = torch.tensor([list(t.shape) for t in x]).amax(0).tolist()
    size = largest if pad_size is None else list(pad_size)
    filled = []
    for tensor in x:
        missing = [part for side, own in zip(size, tensor.shape, strict=True) for part in (side - own, 0)]
        filled.append(torch.nn.functional.pad(tensor, missing[::-1], value=pad_value))
    return torch.stack(filled)


def padded_to_list(x: Tensor, split_size: Sequence[int | Sequence[int]] | None = None) -> list[Tensor]:
    """Convert a padded tensor to a list of members of the given sizes."""
    members = list(x.unbind(0))
    if split_size is None:
        return members
    if len(split_size) != len(members):
        raise InputError(f"padded_to_list: {len(split_size)} sizes were given for {len(members)} members")
    return [
        member[:size] if isinstance(size, int) else member[tuple(slice(0, side) for side in size)]
        for member, size in zip(members, split_size, strict=True)
    ]


def list_to_packed(x: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the packed rows, the rows per member, each member's first row, and the member of each row."""
    counts = torch.tensor([len(t) for t in x], dtype=torch.int64, device=x[0].device)
    return torch.cat(list(x)), counts, first_rows(counts), member_of_rows(counts)


def padded_to_packed(
    x: Tensor, split_size: Sequence[int] | None = None, pad_value: float | None = None
) -> Tensor:
    """Return the rows of padded members [N, M, K], packed: of the given numbers, or without those that are padding."""
    if x.dim() != 3:
        raise InputError(f"padded_to_packed: Supports only [N, M, K], got {list(x.shape)}")
    if split_size is not None and pad_value is not None:
        raise InputError("padded_to_packed: Only one of `split_size` and `pad_value` can be given")
    rows = x.flatten(0, 1)
    if pad_value is not None:
        return rows[(rows != pad_value).any(-1)]
    if split_size is None:
        return rows
    if len(split_size) != len(x):
        raise InputError(
            f"padded_to_packed: `split_size` should have the same length as inputs first dimension, {len(x)}, "
            f"got {len(split_size)}"
        )
    if not all(
        isinstance(size, int) or (isinstance(size, Tensor) and size.dim() == 0) for size in split_size
    ):
        raise InputError("padded_to_packed: `split_size` should be 1-dimensional: a number for each member")
    return torch.cat([member[:size] for member, size in zip(x, split_size, strict=True)])


def packed_to_list(x: Tensor, split_size: int | Sequence[int]) -> list[Tensor]:
    """Split packed rows into members of the given sizes."""
    return list(x.split(split_size if isinstance(split_size, int) else list(split_size)))


def stack(members: Sequence[Tensor]) -> Tensor:
    """Stack the members of a batch; a single one is not copied."""
    return members[0][None] if len(members) == 1 else torch.stack(list(members))


def first_rows(counts: Tensor) -> Tensor:
    """Return the first row of each member."""
    return counts.cumsum(0) - counts


def member_of_rows(counts: Tensor) -> Tensor:
    """Return the member of each row."""
    return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)


def choose(index: object, count: int) -> list[int]:
    """Return the positions that an index selects: a number, a slice, a list, or a tensor of numbers or booleans."""
    positions = torch.arange(count)
    if isinstance(index, int):
        if not -count <= index < count:
            raise IndexError(f"index {index} is out of bounds for {count} members")
        return [index % count]
    if isinstance(index, Tensor):
        index = index.cpu()
    if not isinstance(index, slice | list | tuple | Tensor):
        raise IndexError(f"takes a number, a slice, a list or a tensor, got {type(index).__name__}")
    chosen: list[int] = positions[list(index) if isinstance(index, tuple) else index].reshape(-1).tolist()
    return chosen


__getattr__ = refuse_unknown(__name__)
