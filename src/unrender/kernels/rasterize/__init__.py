"""Faces under each pixel, several deep, with soft edges."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked
from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.kernels._dispatch import can_ask, implementation
from unrender.kernels.rasterize import reference


class Fragments(TensorStruct):
    """For each pixel the faces it sees, front to back. Empty slots hold face −1 and zeros."""

    face_ids: Int[Tensor, "*batch height width layers"]
    barycentric: Float[Tensor, "*batch height width layers 3"]
    """Where on the face, in 3D; outside a face the coordinates are cut off at 0 and sum to 1."""
    depth: Float[Tensor, "*batch height width layers"]
    """z in the camera frame."""
    squared_distance: Float[Tensor, "*batch height width layers"]
    """To the outline of the face on the screen, in pixels², negative inside."""


@checked
def rasterize_faces(
    points: Float[Tensor, "*batch vertices 4"],
    faces: Int[Tensor, "faces 3"],
    *,
    height: int,
    width: int,
    near: float,
    layers: int = 1,
    blur: float = 0.0,
    cull: bool = False,
) -> Fragments:
    """Find, for each pixel, the `layers` nearest faces that cover it or pass within `blur` pixels of its centre.

    Points are homogeneous pixel coordinates (x·w, y·w, w, depth), as `Camera.project_homogeneous` gives them. Faces
    are cut at depth `near`; w must be positive there. `cull` leaves out faces that show their back.
    Equal depths go to the smaller face. A centre on a shared edge belongs to both faces.

    Differentiable in: points, through barycentrics, depths and squared distances (not twice).
    """
    check_screen("rasterize_faces", points, height, width, blur)
    if layers < 1:
        raise InputError(f"rasterize_faces: `layers` should be at least 1, got {layers}")
    settings = (height, width, layers, float(blur), float(near), cull)
    if implementation("rasterize", points.device) is None:
        return Fragments(*reference.forward(points, faces, *settings))
    return Fragments(*_Rasterize.apply(points, faces.contiguous(), *settings))


def check_screen(where: str, points: Tensor, height: int, width: int, blur: float) -> None:
    """Raise `InputError` for an image without pixels, a negative blur, or points that are nowhere.

    On a GPU, which nothing waits for, faces with such points are not drawn.
    """
    if height < 1 or width < 1:
        raise InputError(f"{where}: an image has at least one pixel, got {height} × {width}")
    if not 0 <= blur < float("inf"):
        raise InputError(f"{where}: `blur` should be a number of pixels ≥ 0, got {blur}")
    if can_ask(points) and not bool(torch.isfinite(points.detach()).all()):
        raise InputError(f"{where}: vertices hold NaN or infinite coordinates")


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
        return face_ids, barycentric, depth, squared

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        gradient = ctx.fast.backward(*ctx.saved_tensors, cotangents, ctx.near)
        return (gradient, *[None] * 7)
