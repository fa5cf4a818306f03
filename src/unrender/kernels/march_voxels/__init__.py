"""Rays through a sparse grid of voxels, whose color depends on where one stands."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked
from unrender.kernels._dispatch import implementation
from unrender.kernels.composite import mean_distance
from unrender.kernels.march_voxels import reference
from unrender.kernels.march_voxels.rays import GridRays, Strides
from unrender.kernels.march_voxels.table import VoxelTable


class VoxelMarch(NamedTuple):
    """What rays render to."""

    color: Float[Tensor, "rays 3"]
    """Σ wᵢ cᵢ, on black; a background shines through with 1 − opacity."""
    opacity: Float[Tensor, " rays"]
    """Σ wᵢ, in [0, 1]."""
    distance: Float[Tensor, " rays"]
    """Mean distance Σ wᵢ tᵢ / Σ wᵢ; 0 where nothing is visible."""


@checked
def march_voxels(
    rays: GridRays,
    log_density: Float[Tensor, " corners"],
    harmonics: Float[Tensor, "corners coefficients"],
    table: VoxelTable,
    strides: Strides,
    *,
    voxel_weight: Float[Tensor, " voxels"] | None = None,
) -> VoxelMarch:
    """Add up what rays see: wᵢ = αᵢ Π_{j<i} (1 − αⱼ), αᵢ = 1 − exp(−densityᵢ · lengthᵢ), lengths in units of t.

    The log of the density and the coefficients of the color are interpolated between a voxel's corners; colors are
    max(0, ½ + Σ coefficient · basis), red's coefficients first. Where there is no voxel there is nothing.

    voxel_weight: its entries are raised to the largest weight that a sample within the voxel had, once the backward
    pass is done.
    Differentiable in: log_density, harmonics (not twice).
    """
    given = (rays, log_density, harmonics, table, strides, voxel_weight)
    if implementation("march_voxels", log_density.device) is None:
        color, opacity, distance = reference.forward(*given)
    else:
        color, opacity, distance = _MarchVoxels.apply(*given)
    return VoxelMarch(color, opacity, mean_distance(distance, opacity))


class _MarchVoxels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        rays, log_density, harmonics, table, strides, voxel_weight = arguments
        fast = implementation("march_voxels", log_density.device)
        assert fast is not None
        *seen, records = fast.forward(rays, log_density, harmonics, table, strides)
        ctx.fast, ctx.known = fast, (rays, table, strides, records, voxel_weight)
        return tuple(seen)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, color: Tensor, opacity: Tensor, distance: Tensor) -> tuple[Tensor | None, ...]:
        cotangents = torch.cat([color, opacity[:, None], distance[:, None]], 1)
        return None, *ctx.fast.backward(*ctx.known, cotangents), None, None, None
