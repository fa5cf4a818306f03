"""Multiresolution hash encoding (Instant-NGP)."""

from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked, describe_value
from unrender.errors import ShapeError
from unrender.kernels._dispatch import implementation
from unrender.kernels.hash_grid import reference
from unrender.kernels.hash_grid.levels import HashLevels as HashLevels

MAX_FEATURES = 8


@checked
def hash_grid(
    points: Float[Tensor, "points 3"], table: Float[Tensor, "entries features"], levels: HashLevels
) -> Float[Tensor, "points level_features"]:
    """Encode points in the unit cube with multiresolution features, coarsest level first.

    On every level, the trainable features at the corners of a grid cell are interpolated trilinearly. The table has
    `levels.num_entries` rows of 1 to 8 features. Corners of fine levels share entries by hashing. Collisions are not
    resolved: in training, visible points dominate the gradients of shared entries.

    Points outside [0, 1]³, and those that are not finite, have features 0 and neither receive nor contribute gradients;
    mask the output of a model at such points.

    Differentiable in: points, table (not twice). The gradient of the points is discontinuous at cell boundaries.
    On the CPU the result is a transposed view, with the values of one feature contiguous in memory, as `tiny_mlp`
    reads them.
    Source: Müller et al., Instant Neural Graphics Primitives, 2022, section 3.
    """
    if points.dtype != table.dtype:
        raise ShapeError(
            f"hash_grid: `points` should have the dtype of `table`, {table.dtype}, got {describe_value(points)}"
        )
    if len(table) != levels.num_entries or not 1 <= table.shape[1] <= MAX_FEATURES:
        raise ShapeError(
            f"hash_grid: `table` should have levels.num_entries = {levels.num_entries} rows of 1 to "
            f"{MAX_FEATURES} features, got {describe_value(table)}"
        )
    fast = implementation("hash_grid", table.device)
    if fast is None:
        return reference.forward(points, table, levels)
    found: Tensor = _HashGrid.apply(fast, points, table, levels)
    return found


class _HashGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fast: ModuleType, points: Tensor, table: Tensor, levels: HashLevels) -> Tensor:
        ctx.fast, ctx.levels = fast, levels
        ctx.save_for_backward(points, table)
        found: Tensor = fast.forward(points, table, levels)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[1:3]
        return (None, *ctx.fast.backward(*ctx.saved_tensors, ctx.levels, grad_output, wanted), None)
