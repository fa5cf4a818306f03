"""Points drawn on the surface of a mesh from random numbers."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender.kernels._dispatch import implementation
from unrender.kernels.surface_samples import cpu, reference


class Samples(NamedTuple):
    """Points, unit normals of their faces, the faces, and barycentric coordinates."""

    points: Tensor
    normals: Tensor
    face_ids: Tensor
    barycentric: Tensor


def draw_on_surface(vertices: Tensor, faces: Tensor, jitter: Tensor, uv: Tensor) -> Samples:
    """Draw stratified points `[*batch samples 3]` on meshes `[*batch vertices 3]`; see the reference.

    `jitter` `[*batch samples]`, in double precision, and `uv` `[2 *batch samples]` are uniform in [0, 1).
    Differentiable in: the vertices, through points and normals (on a GPU, not twice).
    """
    if implementation("surface_samples", vertices.device) in (None, cpu):
        return Samples(*reference.forward(vertices, faces, jitter, uv))
    return Samples(*_Draw.apply(vertices, faces, jitter, uv))


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, vertices: Tensor, faces: Tensor, jitter: Tensor, uv: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        fast = implementation("surface_samples", vertices.device)
        assert fast is not None
        ctx.fast = fast
        ctx.set_materialize_grads(False)
        points, normals, face_ids, barycentric = fast.forward(vertices, faces, jitter, uv)
        ctx.mark_non_differentiable(face_ids, barycentric)
        ctx.save_for_backward(vertices, faces, face_ids, barycentric)
        return points, normals, face_ids, barycentric

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_points: Tensor | None, grad_normals: Tensor | None, *_: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        return ctx.fast.backward(*ctx.saved_tensors, grad_points, grad_normals), None, None, None
