"""Volume rendering of a sparse voxel grid with view-dependent color (Plenoxels)."""

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
    """Rendered rays."""

    color: Float[Tensor, "rays 3"]
    """Σ wᵢ cᵢ, on black; add (1 − opacity) · background to composite it on a background."""
    opacity: Float[Tensor, " rays"]
    """Σ wᵢ, in [0, 1]."""
    distance: Float[Tensor, " rays"]
    """Mean distance Σ wᵢ tᵢ / Σ wᵢ; 0 where nothing is visible."""
    voxel_weights: Float[Tensor, " voxels"] | None
    """Largest weight of a sample in each voxel; only with `keep_voxel_weights`."""


@checked
def march_voxels(
    rays: GridRays,
    log_density: Float[Tensor, " corners"],
    harmonics: Float[Tensor, "corners coefficients"],
    table: VoxelTable,
    strides: Strides,
    *,
    keep_voxel_weights: bool = False,
) -> VoxelMarch:
    """Render rays: wᵢ = αᵢ Π_{j<i} (1 − αⱼ), αᵢ = 1 − exp(−densityᵢ · lengthᵢ), with lengths in units of t.

    The log of the density and the coefficients of the color are interpolated between a voxel's corners; colors are
    max(0, ½ + Σ coefficient · basis), with the coefficients of red first. Where there is no voxel, the density is 0.

    keep_voxel_weights: also return the largest weight of a sample in each voxel; 0 for voxels without samples.
    Differentiable in: log_density, harmonics (not twice).
    """
    given = (rays, log_density, harmonics, table, strides, keep_voxel_weights)
    if implementation("march_voxels", log_density.device) is None:
        color, opacity, distance, weights = reference.forward(*given)
    else:
        color, opacity, distance, weights = _MarchVoxels.apply(*given)
    distance = mean_distance(distance, opacity)
    return VoxelMarch(color, opacity, distance, weights if keep_voxel_weights else None)


class _MarchVoxels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        rays, log_density, _, table, strides, _ = arguments
        fast = implementation("march_voxels", log_density.device)
        assert fast is not None
        *found, records = fast.forward(*arguments)
        ctx.fast, ctx.known = fast, (rays, table, strides, records)
        ctx.mark_non_differentiable(found[3])
        return tuple(found)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, color: Tensor, opacity: Tensor, distance: Tensor, weights: Tensor
    ) -> tuple[Tensor | None, ...]:
        grad_outputs = torch.cat([color, opacity[:, None], distance[:, None]], 1)
        return None, *ctx.fast.backward(*ctx.known, grad_outputs), None, None, None
