"""Rasterization of points as discs, with several layers per pixel."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked
from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.kernels._dispatch import implementation
from unrender.kernels.rasterize_points import reference


class PointFragments(TensorStruct):
    """The points at each pixel, front to back. Empty slots have point −1 and zeros elsewhere."""

    point_ids: Int[Tensor, "*batch height width layers"]
    depth: Float[Tensor, "*batch height width layers"]
    """z in the camera frame."""
    squared_distance: Float[Tensor, "*batch height width layers"]
    """Squared distance of the pixel center from the point, in pixels²."""


@checked
def rasterize_discs(
    points: Float[Tensor, "*batch points 3"],
    radii: Float[Tensor, "*batch points"],
    *,
    height: int,
    width: int,
    layers: int = 8,
) -> PointFragments:
    """Find the `layers` nearest of the points whose disc covers each pixel center.

    Points are x and y in pixels, and depth; those with negative or non-finite coordinates or a radius of 0 are
    skipped. Radii are in pixels. Points of equal depth are sorted by index.

    Differentiable in: points, through depths and squared distances (not twice).
    """
    if height < 1 or width < 1 or layers < 1:
        raise InputError(
            f"rasterize_discs: `height`, `width` and `layers` should be at least 1, got {height}, {width}, {layers}"
        )
    settings = (height, width, layers)
    if implementation("rasterize_points", points.device) is None:
        return PointFragments(*reference.forward(points, radii.detach(), *settings))
    return PointFragments(*_RasterizePoints.apply(points, radii.detach(), *settings))


class _RasterizePoints(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, radii: Tensor, *settings: Any) -> tuple[Tensor, ...]:
        fast = implementation("rasterize_points", points.device)
        assert fast is not None
        ctx.fast = fast
        point_ids, depth, squared = fast.forward(points, radii, *settings)
        ctx.save_for_backward(points, radii, point_ids)
        ctx.mark_non_differentiable(point_ids)
        return point_ids, depth, squared

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return (ctx.fast.backward(*ctx.saved_tensors, grad_outputs), *[None] * 4)
