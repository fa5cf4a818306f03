"""Tensors as CPU kernels take and give them."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def one_by_one(num_axes: int, *tensors: Tensor) -> Iterator[tuple[NDArray[Any], ...]]:
    """Walk over the `num_axes` leading axes of tensors; contiguous ones are not copied, so results can be written."""
    flat = [
        t.detach().contiguous().reshape(math.prod(t.shape[:num_axes]), *t.shape[num_axes:]).numpy()
        for t in tensors
    ]
    return zip(*flat, strict=True)


def array(tensor: Tensor) -> NDArray[Any]:
    """Return the values of a tensor, copied only where they do not lie side by side."""
    return tensor.detach().contiguous().numpy()


def room(like: Tensor, *shape: int) -> Tensor:
    """Make a tensor to be filled, of the kind of `like`.

    numpy asks the system for huge pages where it has them: to touch 100 MB for the first time takes a quarter of what
    it takes with torch's.
    """
    return torch.from_numpy(np.empty(shape, torch.empty(0, dtype=like.dtype).numpy().dtype))
