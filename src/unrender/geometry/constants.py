"""Constant tensors, made once for each device: to copy numbers to a GPU waits for it."""

import functools

import torch
from torch import Tensor


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Return a tensor of these numbers, of the kind of `like`; it is shared, so it must not be changed."""
    return _constant(values, like.dtype, like.device)


@functools.lru_cache(256)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
