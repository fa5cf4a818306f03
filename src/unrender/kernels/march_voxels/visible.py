"""Visible samples of sparse voxels: those that `march_voxels` adds up."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.kernels._dispatch import implementation
from unrender.kernels.march_voxels.rays import GridRays, Strides
from unrender.kernels.march_voxels.reference import MAX_OPTICAL_DEPTH, in_grid, locate_voxels, step_lengths
from unrender.kernels.march_voxels.table import VoxelTable


class VoxelSamples(NamedTuple):
    """Samples of all rays, one ray after another."""

    distances: Float[Tensor, " samples"]
    lengths: Float[Tensor, " samples"]
    """Lengths of the steps that contain the samples."""
    offsets: Int[Tensor, " bounds"]
    """The samples of ray r are offsets[r] to offsets[r + 1]."""


@checked
def visible_samples(
    rays: GridRays, log_density: Float[Tensor, " corners"], table: VoxelTable, strides: Strides
) -> VoxelSamples:
    """Return the samples that `march_voxels` adds up, in its steps: those in voxels, of a weight of at least `skip`.

    Differentiable in: nothing.
    """
    fast = implementation("march_voxels", log_density.device)
    given = (rays.detach(), log_density.detach(), table, strides)
    return VoxelSamples(*getattr(fast, "visible_samples", _visible_samples)(*given))


def _visible_samples(
    rays: GridRays, log_density: Tensor, table: VoxelTable, strides: Strides
) -> tuple[Tensor, Tensor, Tensor]:
    """March as `march_voxels`, by the definition; keep samples in voxels with wᵢ = αᵢ Π_{j<i} (1 − αⱼ) ≥ `skip`."""
    t, left = rays.t_near.clone(), torch.ones_like(rays.t_near)
    distances, lengths, kept = [t[:, None][:, :0]], [t[:, None][:, :0]], [t[:, None][:, :0].bool()]
    while bool((is_active := (t < rays.t_far) & (left > strides.stop)).any()):
        length = step_lengths(rays, t, strides)
        t_sample = t + rays.jitter * length
        voxel, weights = locate_voxels(
            in_grid(rays.origins + t_sample[:, None] * rays.directions, table, strides), table
        )
        density = (log_density[table.corners[voxel].long()] * weights).sum(-1).exp()
        alpha = 1 - torch.exp(-(density * length).clamp(max=MAX_OPTICAL_DEPTH))
        counts = is_active & (voxel >= 0) & (left * alpha >= strides.skip)
        for values, more in zip((distances, lengths, kept), (t_sample, length, counts), strict=True):
            values.append(more[:, None])
        left, t = torch.where(counts, left * (1 - alpha), left), t + length
    mask = torch.cat(kept, 1)
    offsets = torch.cat([mask.new_zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)])
    return torch.cat(distances, 1)[mask], torch.cat(lengths, 1)[mask], offsets
