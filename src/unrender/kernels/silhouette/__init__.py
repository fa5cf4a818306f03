"""Soft coverage of the image, over all faces."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked
from unrender.errors import InputError
from unrender.kernels._dispatch import implementation
from unrender.kernels.rasterize import check_screen
from unrender.kernels.silhouette import reference


@checked
def soft_silhouette(
    points: Float[Tensor, "*batch vertices 4"],
    faces: Int[Tensor, "faces 3"],
    *,
    height: int,
    width: int,
    near: float,
    blur: float,
) -> Float[Tensor, "*batch height width"]:
    """Compute how far faces cover each pixel: 1 − Π (1 − sigmoid(−d²/σ)), with edges `blur` pixels wide.

    d² is the squared distance of the pixel's centre to the outline of a face, negative inside (Liu et al., Soft
    Rasterizer, 2019, eq. 2 and 5). The product is over all faces within `blur` pixels, and σ is such that
    the coverage by a face has fallen to 1/10,000 there: σ = blur² / 9.21. Memory is proportional to the image.
    Points are homogeneous pixel coordinates (x·w, y·w, w, depth); faces are cut at depth `near`.

    Differentiable in: points (not twice).
    """
    check_screen("soft_silhouette", points, height, width, blur)
    if blur <= 0:
        raise InputError(f"soft_silhouette: `blur` should be a number of pixels > 0, got {blur}")
    settings = (height, width, float(blur), float(near))
    if implementation("silhouette", points.device) is None:
        return 1 - reference.forward(points, faces, *settings)
    open_share: Tensor = _Silhouette.apply(points, faces.contiguous(), *settings)
    return 1 - open_share


class _Silhouette(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, faces: Tensor, *settings: Any) -> Tensor:
        fast = implementation("silhouette", points.device)
        assert fast is not None
        ctx.fast = fast
        open_share: Tensor = fast.forward(points, faces, *settings)
        ctx.save_for_backward(points, faces, open_share)
        ctx.settings = settings[2:]
        return open_share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        gradient = ctx.fast.backward(*ctx.saved_tensors, cotangent, *ctx.settings)
        return (gradient, *[None] * 5)
