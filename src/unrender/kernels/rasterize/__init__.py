"""Rasterization of triangle meshes with several layers per pixel and soft edges."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked
from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.kernels._dispatch import can_read, implementation
from unrender.kernels.rasterize import reference


class Fragments(TensorStruct):
    """The faces at each pixel, front to back. Empty slots have face −1 and zeros elsewhere."""

    face_ids: Int[Tensor, "*batch height width layers"]
    barycentric: Float[Tensor, "*batch height width layers 3"]
    """Perspective-correct barycentric coordinates; outside a face they are clamped at 0 and normalized."""
    depth: Float[Tensor, "*batch height width layers"]
    """z in the camera frame."""
    squared_distance: Float[Tensor, "*batch height width layers"]
    """Squared distance to the projected outline of the face, in pixels², negative inside."""


@checked
def rasterize_faces(
    points: Float[Tensor, "*batch vertices 4"],
    faces: Int[Tensor, "faces 3"],
    *,
    height: int,
    width: int,
    near: float | Float[Tensor, ""],
    layers: int = 1,
    blur: float = 0.0,
    cull: bool = False,
) -> Fragments:
    """Find the `layers` nearest faces within `blur` pixels of each pixel center.

    Points are homogeneous pixel coordinates (x·w, y·w, w, depth), as returned by `Camera.project_homogeneous`. Faces
    are clipped at the near plane, at depth `near`; w must be positive there. `cull` enables backface culling. Ties in
    depth are resolved in favor of the smaller face index; a pixel center on a shared edge belongs to both faces.

    Differentiable in: points, through barycentrics, depths and squared distances (not twice).
    """
    check_screen("rasterize_faces", points, height, width, blur)
    if layers < 1:
        raise InputError(f"rasterize_faces: `layers` should be at least 1, got {layers}")
    settings = (height, width, layers, float(blur))
    if implementation("rasterize", points.device) is None:
        return Fragments(*reference.forward(points, faces, *settings, float(near), cull))
    return Fragments(*_Rasterize.apply(points, faces.contiguous(), *settings, near_depth(near), cull))


def near_depth(near: float | Tensor) -> float | Tensor:
    """Return the depth of the near plane as a number, or as a tensor on a GPU, which would have to be waited for."""
    if not isinstance(near, Tensor) or can_read(near):
        return float(near)
    return near.detach() if near.requires_grad else near


def check_screen(where: str, points: Tensor, height: int, width: int, blur: float) -> None:
    """Raise `InputError` for an empty image, a negative blur, or non-finite points.

    On a GPU, to avoid a synchronization, faces with such points are skipped instead.
    """
    if height < 1 or width < 1:
        raise InputError(f"{where}: `height` and `width` should be at least 1, got {height} × {width}")
    if not 0 <= blur < float("inf"):
        raise InputError(f"{where}: `blur` should be at least 0 pixels, and finite, got {blur}")
    if can_read(points) and not bool(torch.isfinite(points.detach()).all()):
        raise InputError(f"{where}: vertices have NaN or infinite coordinates")


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, faces: Tensor, *settings: Any) -> tuple[Tensor, ...]:
        fast = implementation("rasterize", points.device)
        assert fast is not None
        ctx.fast = fast
        face_ids, barycentric, depth, squared = fast.forward(points, faces, *settings)
        ctx.save_for_backward(points, faces, face_ids, barycentric)
        ctx.near = settings[4]
        ctx.mark_non_differentiable(face_ids)
        ctx.set_materialize_grads(False)  # not of face_ids
        return face_ids, barycentric, depth, squared

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: None, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        points, faces, face_ids, barycentric = ctx.saved_tensors
        shapes = (barycentric.shape, face_ids.shape, face_ids.shape)
        given = [
            barycentric.new_zeros(shape) if grad is None else grad
            for shape, grad in zip(shapes, grad_outputs, strict=True)
        ]
        gradient = ctx.fast.backward(points, faces, face_ids, barycentric, tuple(given), ctx.near)
        return (gradient, *[None] * 7)
