"""Weights of the samples along rays through sparse voxels, one by one, for losses of their distribution."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.kernels.composite import composite
from unrender.kernels.march_voxels.rays import GridRays, Strides
from unrender.kernels.march_voxels.reference import in_grid, locate_voxels
from unrender.kernels.march_voxels.table import VoxelTable
from unrender.kernels.march_voxels.visible import visible_samples
from unrender.render.sample import RaySamples


def visible_weights(
    rays: GridRays, log_density: Float[Tensor, " corners"], table: VoxelTable, strides: Strides
) -> tuple[RaySamples, Float[Tensor, " samples"]]:
    """Return the samples that `march_voxels` adds up, and their weights, which it does not return.

    Differentiable in: log_density.
    """
    with torch.no_grad():
        samples = RaySamples(*visible_samples(rays, log_density, table, strides))
        assert samples.offsets is not None
        ray = torch.repeat_interleave(samples.offsets.diff())
        points = rays.origins[ray] + samples.distances[:, None] * rays.directions[ray]
        voxel, fractions = locate_voxels(in_grid(points, table, strides), table)
        corners, exists = table.corners[voxel].long(), voxel >= 0
    density = (log_density[corners] * fractions).sum(-1).exp() * exists
    return samples, composite(density, samples.lengths, offsets=samples.offsets).weights
