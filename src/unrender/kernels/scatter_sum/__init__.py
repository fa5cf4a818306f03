"""Gather of columns by index, and its transpose, scatter-add: each is the derivative of the other."""

from typing import Any

import torch
from torch import Tensor

from unrender.kernels._dispatch import implementation
from unrender.kernels.scatter_sum import cpu, reference


def gather_columns(columns: Tensor, index: Tensor) -> Tensor:
    """Select columns `[... n]` by an index `[... m]`; it may have the leading axes of the columns, or none.

    Differentiable in: columns, any number of times.
    """
    if implementation("scatter_sum", columns.device) is cpu:
        return cpu.backward(index, columns)
    gathered: Tensor = _Gather.apply(columns, index)
    return gathered


def scatter_sum(columns: Tensor, index: Tensor, size: int) -> Tensor:
    """Sum the columns `[... m]` that share an index, into `size` columns; the transpose of `gather_columns`.

    The order of summation is fixed, so that results are reproducible to the bit.
    Differentiable in: columns, any number of times.
    """
    if implementation("scatter_sum", columns.device) is cpu:
        return cpu.forward(columns, index, size)
    summed: Tensor = _ScatterSum.apply(columns, index, size)
    return summed


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, columns: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = columns.shape[-1]
        return cpu.backward(index, columns)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return _ScatterSum.apply(grad_output, index, ctx.size), None


class _ScatterSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, columns: Tensor, index: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(index)
        fast = implementation("scatter_sum", columns.device)
        summed: Tensor = (reference if fast is None else fast).forward(columns, index, size)
        return summed

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return _Gather.apply(grad_output, index), None, None
