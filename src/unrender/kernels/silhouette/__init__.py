"""Soft silhouettes over all faces of a mesh (Soft Rasterizer)."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked
from unrender.errors import InputError
from unrender.kernels._dispatch import implementation
from unrender.kernels.rasterize import check_screen, near_depth
from unrender.kernels.silhouette import reference


@checked
def soft_silhouette(
    points: Float[Tensor, "*batch vertices 4"],
    faces: Int[Tensor, "faces 3"],
    *,
    height: int,
    width: int,
    near: float | Float[Tensor, ""],
    blur: float,
) -> Float[Tensor, "*batch height width"]:
    """Compute a soft silhouette: 1 − Π (1 − sigmoid(−d²/σ)), with edges `blur` pixels wide.

    d² is the squared distance from the pixel center to the outline of a face, negative inside (Liu et al., Soft
    Rasterizer, 2019, eq. 2 and 5). The product is over all faces within `blur` pixels, where the coverage of a face has
    dropped to 1e-4: σ = blur² / 9.21. Memory is proportional to the image size.
    Points are homogeneous pixel coordinates (x·w, y·w, w, depth); faces are clipped at depth `near`.

    Differentiable in: points (not twice).
    """
    check_screen("soft_silhouette", points, height, width, blur)
    if blur <= 0:
        raise InputError(f"soft_silhouette: `blur` should be positive, in pixels, got {blur}")
    settings = (height, width, float(blur))
    if implementation("silhouette", points.device) is None:
        return 1 - reference.forward(points, faces, *settings, float(near))
    silhouette: Tensor = _Silhouette.apply(points, faces.contiguous(), *settings, near_depth(near))
    return silhouette


class _Silhouette(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, faces: Tensor, *settings: Any) -> Tensor:
        fast = implementation("silhouette", points.device)
        assert fast is not None
        ctx.fast = fast
        silhouette: Tensor
        silhouette, transparency, *screen = fast.forward(points, faces, *settings)
        ctx.save_for_backward(points, faces, transparency, *screen)
        ctx.settings = settings[2:]
        return silhouette

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        points, faces, transparency, *screen = ctx.saved_tensors
        gradient = ctx.fast.backward(points, faces, transparency, tuple(screen), grad_output, *ctx.settings)
        return (gradient, *[None] * 5)
