"""Sums of columns by index: on a CPU, torch adds in a fixed order."""

from torch import Tensor

from unrender.kernels.scatter_sum import reference


def forward(columns: Tensor, index: Tensor, size: int) -> Tensor:
    return reference.forward(columns, index, size)


def backward(index: Tensor, cotangent: Tensor) -> Tensor:
    return cotangent.gather(-1, reference.expand_index(cotangent, index))
