"""Mean distance between nearest neighbors of two point clouds, in both directions."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender.kernels._dispatch import implementation
from unrender.kernels.chamfer import cpu, reference


def is_fused(points: Tensor) -> bool:
    """Return whether `mean_chamfer` is faster than searches and means on this device."""
    return implementation("chamfer", points.device) not in (None, cpu)


def mean_chamfer(x: Tensor, y: Tensor, x_ids: Tensor | None, y_ids: Tensor | None, norm: int) -> Tensor:
    """Compute the Chamfer distance `[]` between `[*batch x dim]` and `[*batch y dim]`; see the reference.

    `x_ids` and `y_ids` are the nearest neighbors of each point, where they are known.
    Differentiable in: x, y (on a GPU, not twice).
    """
    if not is_fused(x):
        return reference.forward(x, y, x_ids, y_ids, norm)
    distance: Tensor = _MeanChamfer.apply(x, y, x_ids, y_ids, norm)
    return distance


class _MeanChamfer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, x_ids: Tensor | None, y_ids: Tensor | None, norm: int
    ) -> Tensor:
        fast = implementation("chamfer", x.device)
        assert fast is not None
        ctx.fast, ctx.norm = fast, norm
        distance: Tensor
        distance, *found = fast.forward(x, y, x_ids, y_ids, norm)
        ctx.save_for_backward(x, y, *found)
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return *ctx.fast.backward(*ctx.saved_tensors, ctx.norm, grad_output), None, None, None
