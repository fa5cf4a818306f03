"""Trilinear look-up in a voxel grid."""

from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked, describe_value
from unrender.errors import ShapeError
from unrender.kernels._dispatch import implementation
from unrender.kernels.sample_grid import reference


@checked
def sample_grid(
    grid: Float[Tensor, "*batch depth height width channels"], points: Float[Tensor, "*batch points 3"]
) -> Float[Tensor, "*batch points channels"]:
    """Look up a voxel grid at points between its voxels, trilinearly.

    Points are (x, y, z) in voxels, along width, height and depth: voxel [k, j, i] reaches from (i, j, k) to
    (i, j, k) + 1, and has its value at its center, as pixels have. Beyond the grid everything is 0: values fade from
    the outermost centers to half a voxel outside. So they do in torch's `grid_sample` with `align_corners=False`.

    Differentiable in: grid, points (not twice). Points that are not finite give 0, and get no gradient.
    """
    if grid.dtype != points.dtype:
        raise ShapeError(
            f"sample_grid: `points` should have the type of `grid`, {grid.dtype}, got {describe_value(points)}"
        )
    batch = grid.shape[:-4]
    if batch:
        each = zip(grid.flatten(0, -5), points.flatten(0, -3), strict=True)
        mixed = [sample_grid(*one) for one in each]
        return (torch.stack(mixed) if mixed else grid.new_empty(0)).view(
            *batch, points.shape[-2], grid.shape[-1]
        )
    fast = implementation("sample_grid", grid.device)
    if fast is None:
        return reference.forward(grid, points)
    found: Tensor = _SampleGrid.apply(fast, grid, points)
    return found


class _SampleGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fast: ModuleType, grid: Tensor, points: Tensor) -> Tensor:
        ctx.fast = fast
        ctx.save_for_backward(grid, points)
        found: Tensor = fast.forward(grid, points)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.fast.backward(*ctx.saved_tensors, cotangent, ctx.needs_input_grad[1:]))
