"""Mean deviation of the normals of adjacent faces."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender.kernels._dispatch import implementation
from unrender.kernels.normal_consistency import cpu, reference


def normal_consistency(vertices: Tensor, faces: Tensor, hinge_faces: Tensor, hinge_signs: Tensor) -> Tensor:
    """Compute the mean of 1 − cos of the angle between adjacent faces of `[*batch vertices 3]`; see the reference.

    Differentiable in: the vertices (on a GPU, not twice).
    """
    if implementation("normal_consistency", vertices.device) in (None, cpu):
        return reference.forward(vertices, faces, hinge_faces, hinge_signs)
    result: Tensor = _NormalConsistency.apply(vertices, faces, hinge_faces, hinge_signs)
    return result


class _NormalConsistency(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, vertices: Tensor, faces: Tensor, hinge_faces: Tensor, hinge_signs: Tensor
    ) -> Tensor:
        fast = implementation("normal_consistency", vertices.device)
        assert fast is not None
        ctx.fast = fast
        ctx.save_for_backward(vertices, faces, hinge_faces, hinge_signs)
        result: Tensor = fast.forward(vertices, faces, hinge_faces, hinge_signs)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.fast.backward(*ctx.saved_tensors, grad_output), None, None, None
