"""Total variation: one thread per corner, which gathers the gradient from its neighbors."""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision


def forward(values: Tensor, neighbors: Tensor) -> Tensor:
    sums = values.new_empty(len(values))
    launch(_kernels(values.dtype).accumulate, len(values), values.contiguous(), _numbers(neighbors), sums)
    return sums.sum() / _pairs(neighbors)


def backward(values: Tensor, neighbors: Tensor, grad_output: Tensor) -> Tensor:
    gradient = torch.empty_like(values, memory_format=torch.contiguous_format)
    scale = (2 * grad_output / _pairs(neighbors)).to(values.dtype).reshape(1)
    arrays = (values.contiguous(), _numbers(neighbors), scale, gradient)
    launch(_kernels(values.dtype).backward, tuple(values.shape), *arrays)
    return gradient


def _numbers(neighbors: Tensor) -> Tensor:
    return neighbors.to(torch.int32).contiguous()


def _pairs(neighbors: Tensor) -> Tensor:
    return (neighbors[:, 1::2] >= 0).sum().clamp(min=1)


@per_precision("total_variation")
def _kernels(precision: Precision) -> SimpleNamespace:
    scalar = precision.scalar

    @precision.kernel
    def accumulate(
        values: wp.array2d(dtype=scalar),
        neighbors: wp.array2d(dtype=wp.int32),
        sums: wp.array(dtype=scalar),
    ):
        i = wp.tid()
        total = scalar(0.0)
        for axis in range(3):
            j = neighbors[i, 2 * axis + 1]
            if j >= 0:
                for f in range(values.shape[1]):
                    difference = values[i, f] - values[j, f]
                    total += difference * difference
        sums[i] = total

    @precision.kernel
    def backward(
        values: wp.array2d(dtype=scalar),
        neighbors: wp.array2d(dtype=wp.int32),
        scale: wp.array(dtype=scalar),
        gradient: wp.array2d(dtype=scalar),
    ):
        i, f = wp.tid()
        total = scalar(0.0)
        for side in range(6):
            j = neighbors[i, side]
            if j >= 0:
                total += values[i, f] - values[j, f]
        gradient[i, f] = scale[0] * total

    return SimpleNamespace(accumulate=accumulate, backward=backward)
