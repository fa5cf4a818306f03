"""Fused ray marching of a dense voxel grid: trilinear sampling of alphas and colors, and compositing."""

from types import ModuleType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked
from unrender.errors import ShapeError
from unrender.kernels._dispatch import implementation
from unrender.kernels.march_grid import reference


class GridMarch(NamedTuple):
    """Rendered rays."""

    color: Float[Tensor, "rays colors"]
    """Σ weight · color, without background: premultiplied by the opacity."""
    opacity: Float[Tensor, " rays"]
    """Σ weight, in [0, 1]."""


@checked
def march_grid(
    grid: Float[Tensor, "depth height width channels"],
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    distances: Float[Tensor, "#rays samples"],
) -> GridMarch:
    """Sample alphas, the first channel, and colors, the others, at origin + distance · direction, and composite them.

    The result is that of `sample_grid` followed by `composite_alphas`, without storing the samples. Origins and
    directions are in voxels; interpolation is trilinear, with zeros outside the grid; alphas should be in [0, 1].
    A single row of distances is used for all rays.

    Differentiable in: grid (not twice).
    """
    if grid.shape[-1] == 0:
        raise ShapeError("march_grid: `grid` should have at least one channel, for the alphas")
    rays = (origins.detach(), directions.detach(), distances.detach())
    fast = implementation("march_grid", grid.device)
    if fast is None:
        return GridMarch(*reference.forward(grid, *rays))
    return GridMarch(*_MarchGrid.apply(fast, grid, *rays))


class _MarchGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fast: ModuleType, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        ctx.fast = fast
        ctx.save_for_backward(*arguments)
        rendered: tuple[Tensor, Tensor] = fast.forward(*arguments)
        return rendered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return (None, ctx.fast.backward(*ctx.saved_tensors, *grad_outputs), None, None, None)
