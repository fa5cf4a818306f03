"""Normals of vertices, from the faces around them."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender.kernels._dispatch import implementation
from unrender.kernels.vertex_normals import cpu, reference


def normals_of_vertices(vertices: Tensor, faces: Tensor) -> Tensor:
    """Compute unit normals `[*batch vertices 3]` of vertices `[*batch vertices 3]`; see the reference.

    Differentiable in: the vertices (on a GPU, not twice).
    """
    if implementation("vertex_normals", vertices.device) in (None, cpu):
        return reference.forward(vertices, faces)[0]
    result: Tensor = _VertexNormals.apply(vertices, faces)
    return result


class _VertexNormals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vertices: Tensor, faces: Tensor) -> Tensor:
        fast = implementation("vertex_normals", vertices.device)
        assert fast is not None
        ctx.fast = fast
        result: Tensor
        result, sums = fast.forward(vertices, faces)
        ctx.save_for_backward(vertices, faces, sums)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.fast.backward(*ctx.saved_tensors, grad_output), None
