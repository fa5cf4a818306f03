"""Tensors with leading axes, one after another as the arrays that CPU kernels take."""

import math
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray
from torch import Tensor


def one_by_one(num_axes: int, *tensors: Tensor) -> Iterator[tuple[NDArray[Any], ...]]:
    """Walk over the `num_axes` leading axes of tensors; contiguous ones are not copied, so results can be written."""
    flat = [
        t.detach().contiguous().reshape(math.prod(t.shape[:num_axes]), *t.shape[num_axes:]).numpy()
        for t in tensors
    ]
    return zip(*flat, strict=True)
