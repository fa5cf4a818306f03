"""Area vectors of the faces of meshes."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender.kernels._dispatch import implementation
from unrender.kernels.face_vectors import reference


def face_vectors(columns: Tensor, faces: Tensor) -> Tensor:
    """Compute face normals `[*batch 3 faces]` of length twice the face area, from vertices `[*batch 3 vertices]`.

    Differentiable in: the vertices (not twice).
    """
    if implementation("face_vectors", columns.device) is None:
        return reference.forward(columns, faces)
    vectors: Tensor = _FaceVectors.apply(columns, faces)
    return vectors


class _FaceVectors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, columns: Tensor, faces: Tensor) -> Tensor:
        fast = implementation("face_vectors", columns.device)
        assert fast is not None
        ctx.fast = fast
        ctx.save_for_backward(columns, faces)
        vectors: Tensor = fast.forward(columns, faces)
        return vectors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        return ctx.fast.backward(*ctx.saved_tensors, grad_output), None
