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


def incidence(index: Tensor, size: int) -> Incidence:
    """Find the positions of items 0 to `size`; cached for the lifetime of the index unless it is modified in place."""
    if index.is_inference():  # has no version counter to detect changes with
        return _find(index, size)
    if index not in _found or _found[index][:2] != (index._version, size):
        _found[index] = index._version, size, _find(index, size)
    return _found[index][2]


def _find(index: Tensor, size: int) -> Incidence:
    items, positions = index.detach().long().flatten().sort(stable=True)
    starts = torch.searchsorted(items, torch.arange(size + 1, device=index.device))
    return Incidence(starts, positions)
