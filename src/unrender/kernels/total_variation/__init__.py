"""Total variation of the values of a sparse grid."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked
from unrender.kernels._dispatch import implementation
from unrender.kernels.total_variation import reference


@checked
def total_variation(
    values: Float[Tensor, "corners channels"], neighbors: Int[Tensor, "corners 6"]
) -> Float[Tensor, ""]:
    """Return the mean over all pairs of neighbors of Σ (valueᵢ − valueⱼ)², summed over channels.

    `neighbors` are those along −x, +x, −y, +y, −z, +z, or −1. If i is a neighbor of j, then j is one of i.
    Differentiable in: values (not twice).
    """
    if implementation("total_variation", values.device) is None:
        return reference.forward(values, neighbors)
    mean: Tensor = _TotalVariation.apply(values, neighbors)
    return mean


class _TotalVariation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, neighbors: Tensor) -> Tensor:
        fast = implementation("total_variation", values.device)
        assert fast is not None
        ctx.fast = fast
        ctx.save_for_backward(values, neighbors)
        mean: Tensor = fast.forward(values, neighbors)
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        return ctx.fast.backward(*ctx.saved_tensors, grad_output), None
