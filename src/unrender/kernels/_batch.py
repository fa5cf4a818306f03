"""Conversion between tensors and the arrays of CPU kernels."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def iterate_batch(num_axes: int, *tensors: Tensor) -> Iterator[tuple[NDArray[Any], ...]]:
    """Iterate over the `num_axes` leading axes of tensors; contiguous tensors are not copied, but can be written to."""
    flat = [
        t.detach().contiguous().reshape(math.prod(t.shape[:num_axes]), *t.shape[num_axes:]).numpy()
        for t in tensors
    ]
    return zip(*flat, strict=True)


def array(tensor: Tensor) -> NDArray[Any]:
    """Return the values of a tensor as an array, copied only if not contiguous."""
    return tensor.detach().contiguous().numpy()


def allocate(like: Tensor, *shape: int) -> Tensor:
    """Allocate an uninitialized tensor with the dtype of `like`.

    Memory comes from numpy, which requests huge pages where available: touching 100 MB for the first time takes a
    quarter of the time that it takes for memory from torch.
    """
    return torch.from_numpy(np.empty(shape, torch.empty(0, dtype=like.dtype, device="cpu").numpy().dtype))
