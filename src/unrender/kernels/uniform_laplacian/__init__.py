"""Mean distance of vertices from the mean of their neighbors."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender.kernels._dispatch import implementation
from unrender.kernels.uniform_laplacian import cpu, reference


def uniform_laplacian_loss(vertices: Tensor, edges: Tensor) -> Tensor:
    """Compute the mean of |mean_j v_j − v_i| over the vertices i of `[*batch vertices 3]`; see the reference.

    Differentiable in: the vertices (on a GPU, not twice).
    """
    if implementation("uniform_laplacian", vertices.device) in (None, cpu):
        return reference.forward(vertices, edges)[0]
    result: Tensor = _UniformLaplacian.apply(vertices, edges)
    return result


class _UniformLaplacian(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vertices: Tensor, edges: Tensor) -> Tensor:
        fast = implementation("uniform_laplacian", vertices.device)
        assert fast is not None
        ctx.fast = fast
        result: Tensor
        result, offsets = fast.forward(vertices, edges)
        ctx.save_for_backward(vertices, edges, offsets)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.fast.backward(*ctx.saved_tensors, grad_output), None
