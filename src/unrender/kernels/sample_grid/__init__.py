"""Trilinear interpolation in a voxel grid."""

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
    """Sample a voxel grid at points by trilinear interpolation.

    Points are (x, y, z) in voxels, along width, height and depth: voxel [k, j, i] extends from (i, j, k) to
    (i, j, k) + 1, with its value at the center. The grid is padded with zeros, so that values fall to 0 between the
    outermost centers and half a voxel outside, like `torch.nn.functional.grid_sample` with `align_corners=False` and
    `padding_mode="zeros"`.

    Differentiable in: grid, points (not twice). Points that are not finite give 0, and get no gradient.
    """
    if grid.dtype != points.dtype:
        raise ShapeError(
            f"sample_grid: `points` should have the dtype of `grid`, {grid.dtype}, got {describe_value(points)}"
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
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.fast.backward(*ctx.saved_tensors, grad_output, ctx.needs_input_grad[1:]))
