"""Where rays through a sparse grid of voxels meet something, by the definition."""

import torch
from torch import Tensor

from unrender.kernels.march_voxels.rays import GridRays, Strides
from unrender.kernels.march_voxels.reference import MAX_OPTICAL_DEPTH, in_grid, look_up, step_lengths
from unrender.kernels.march_voxels.table import VoxelTable


def forward(
    rays: GridRays, log_density: Tensor, table: VoxelTable, strides: Strides
) -> tuple[Tensor, Tensor, Tensor]:
    """Walk as `march_voxels` does; keep samples in voxels with wᵢ = αᵢ Π_{j<i} (1 − αⱼ) ≥ `skip`.

    αᵢ = 1 − exp(−exp(log densityᵢ) lengthᵢ). The light ends at `stop`. Returns the distances and the lengths of
    steps, ray after ray, and [rays + 1] where those of each ray begin.
    """
    t, left = rays.near.clone(), torch.ones_like(rays.near)
    distances, lengths, kept = [t[:, None][:, :0]], [t[:, None][:, :0]], [t[:, None][:, :0].bool()]
    while bool((going := (t < rays.far) & (left > strides.stop)).any()):
        length = step_lengths(rays, t, strides)
        here = t + rays.jitter * length
        points = rays.origins + here[:, None] * rays.directions
        places = in_grid(points, table, strides)
        voxel, weights = look_up(places, table)
        density = (log_density[table.corners[voxel].long()] * weights).sum(-1).exp()
        alpha = 1 - torch.exp(-(density * length).clamp(max=MAX_OPTICAL_DEPTH))
        counts = going & (voxel >= 0) & (left * alpha >= strides.skip)
        distances, lengths, kept = (
            [*distances, here[:, None]],
            [*lengths, length[:, None]],
            [*kept, counts[:, None]],
        )
        left, t = torch.where(counts, left * (1 - alpha), left), t + length
    mask = torch.cat(kept, 1)
    offsets = torch.cat([mask.new_zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)])
    return torch.cat(distances, 1)[mask], torch.cat(lengths, 1)[mask], offsets
