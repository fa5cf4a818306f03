"""Entries of an index that refer to each item, so that one thread per item sums its terms in a fixed order."""

from collections.abc import MutableMapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


class Incidence(NamedTuple):
    """The positions of item i in the flattened index are `places[starts[i]:starts[i + 1]]`, in ascending order."""

    starts: Tensor
    positions: Tensor


_found: MutableMapping[Tensor, tuple[int, int, Incidence]] = WeakIdKeyDictionary()
_copied: MutableMapping[Tensor, tuple[int, Tensor, int]] = WeakIdKeyDictionary()
"""Of a copy: its version, what it was copied from, and the version of that."""


def incidence(index: Tensor, size: int) -> Incidence:
    """Find the positions of items 0 to `size`; cached for the lifetime of the index unless it is modified in place."""
    if index.is_inference():  # has no version counter to detect changes with
        return _find(index, size)
    index = _original(index)
    if index not in _found or _found[index][:2] != (index._version, size):
        _found[index] = index._version, size, _find(index, size)
    return _found[index][2]


def record_copy(index: Tensor, copied: Tensor) -> None:
    """Let a copy of an index, until one of both is modified, share what is found."""
    if not index.is_inference() and not copied.is_inference():
        original = _original(index)
        _copied[copied] = copied._version, original, original._version


def _original(index: Tensor) -> Tensor:
    if index not in _copied:
        return index
    version, original, original_version = _copied[index]
    return original if (index._version, original._version) == (version, original_version) else index


def _find(index: Tensor, size: int) -> Incidence:
    items, positions = index.detach().long().flatten().sort(stable=True)
    starts = torch.searchsorted(items, torch.arange(size + 1, device=index.device))
    return Incidence(starts, positions)
