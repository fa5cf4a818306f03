"""Mean squared deviation of edges from a length."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender.kernels._dispatch import implementation
from unrender.kernels.edge_loss import cpu, reference


def edge_loss(vertices: Tensor, edges: Tensor, target_length: float) -> Tensor:
    """Compute the mean of (length − `target_length`)² over the edges of `[*batch vertices 3]`; see the reference.

    Differentiable in: the vertices (on a GPU, not twice).
    """
    if implementation("edge_loss", vertices.device) in (None, cpu):
        return reference.forward(vertices, edges, target_length)
    result: Tensor = _EdgeLoss.apply(vertices, edges, target_length)
    return result


class _EdgeLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vertices: Tensor, edges: Tensor, target_length: float) -> Tensor:
        fast = implementation("edge_loss", vertices.device)
        assert fast is not None
        ctx.fast = fast
        ctx.save_for_backward(vertices, edges)
        ctx.target_length = target_length
        result: Tensor = fast.forward(vertices, edges, target_length)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.fast.backward(*ctx.saved_tensors, ctx.target_length, grad_output), None, None
