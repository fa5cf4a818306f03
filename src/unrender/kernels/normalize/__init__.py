"""Lengths and directions of vectors, in columns."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender.kernels._dispatch import implementation
from unrender.kernels.normalize import cpu, reference


def norm(columns: Tensor) -> Tensor:
    """Compute the length of columns `[... axes n]`; the gradient is zero where the length is zero.

    Differentiable in: columns (on a GPU, not twice).
    """
    if implementation("normalize", columns.device) in (None, cpu):
        return reference.norm(columns)
    lengths: Tensor = _Normalize.apply(columns)[1]
    return lengths


def normalize(columns: Tensor) -> Tensor:
    """Divide columns `[... axes n]` by their length; zero, with zero gradient, below 1e-15 (float64: 1e-150).

    Differentiable in: columns (on a GPU, not twice).
    """
    if implementation("normalize", columns.device) in (None, cpu):
        return reference.forward(columns)[0]
    units: Tensor = _Normalize.apply(columns)[0]
    return units


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, columns: Tensor) -> tuple[Tensor, Tensor]:
        fast = implementation("normalize", columns.device)
        assert fast is not None
        ctx.fast = fast
        ctx.set_materialize_grads(False)
        units, lengths = fast.forward(columns)
        ctx.save_for_backward(columns, lengths)
        return units, lengths

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_units: Tensor | None, grad_lengths: Tensor | None) -> Tensor:
        gradient: Tensor = ctx.fast.backward(*ctx.saved_tensors, grad_units, grad_lengths)
        return gradient
