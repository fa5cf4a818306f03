"""Reference implementation of volume rendering of a sparse voxel grid."""

import torch
from torch import Tensor

from unrender.kernels.contraction import contract, contracted_steps
from unrender.kernels.march_voxels.rays import GridRays, Strides
from unrender.kernels.march_voxels.table import BRICK, CORNERS, VoxelTable

MAX_OPTICAL_DEPTH = 30.0
"""Upper limit of the optical depth of a sample, at a transmittance of 1e-13."""


def forward(
    rays: GridRays,
    log_density: Tensor,
    harmonics: Tensor,
    table: VoxelTable,
    strides: Strides,
    keep_voxel_weights: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return Σ wᵢ cᵢ, Σ wᵢ, Σ wᵢ tᵢ and, with `keep_voxel_weights`, the largest wᵢ in each voxel.

    wᵢ = αᵢ Π_{j<i} (1 − αⱼ) and αᵢ = 1 − exp(−exp(log densityᵢ) lengthᵢ).

    One sample lies in each step along the ray, at the fraction `jitter` of it. Log density and the coefficients of the
    color, cᵢ = max(0, ½ + Σₖ coefficientₖ basisₖ(direction)), are interpolated between the corners of the voxel.
    """
    t, transmittance = rays.t_near.clone(), torch.ones_like(rays.t_near)
    color, distance = torch.zeros_like(rays.origins), torch.zeros_like(rays.t_near)
    voxel_weights = t.new_zeros(table.num_voxels)
    while bool((is_active := (t < rays.t_far) & (transmittance > strides.stop)).any()):
        length = step_lengths(rays, t, strides)
        t_sample = t + rays.jitter * length
        points = rays.origins + t_sample[:, None] * rays.directions
        positions = in_grid(points, table, strides)
        voxel, weights = locate_voxels(positions.detach(), table)
        corners = table.corners[voxel].long()
        depth = ((log_density[corners] * weights).sum(-1).exp() * length).clamp(max=MAX_OPTICAL_DEPTH)
        alpha = torch.where(is_active & (voxel >= 0), 1 - torch.exp(-depth), 0)
        weight = torch.where(transmittance * alpha < strides.skip, 0, transmittance * alpha)
        mixed = (harmonics[corners] * weights[..., None]).sum(1).unflatten(-1, (3, -1))
        color = color + weight[:, None] * (0.5 + (mixed * rays.basis[:, None]).sum(-1)).clamp(min=0)
        distance = distance + weight * t_sample
        exists = voxel >= 0
        voxel_weights = voxel_weights.scatter_reduce(0, voxel[exists], weight.detach()[exists], "amax")
        transmittance, t = transmittance - weight, t + length
    return color, 1 - transmittance, distance, voxel_weights if keep_voxel_weights else t[:0]


def locate_voxels(positions: Tensor, table: VoxelTable) -> tuple[Tensor, Tensor]:
    """Return the voxel at each position, −1 where there is none, and the trilinear weights of its corners."""
    last = torch.tensor(table.shape, device=positions.device) - 1
    i = torch.minimum(positions.long().clamp(min=0), last)
    brick = table.bricks[tuple((i // BRICK).unbind(-1))].long()
    x, y, z = (i % BRICK).unbind(-1)
    within = (x * BRICK + y) * BRICK + z
    voxel = torch.where(brick >= 0, table.voxels[brick, within], -1).long()
    fraction = torch.where(voxel[:, None] >= 0, positions - i, 0)[:, None]
    return voxel, torch.where(torch.from_numpy(CORNERS).to(i) == 1, fraction, 1 - fraction).prod(-1)


def step_lengths(rays: GridRays, t: Tensor, strides: Strides) -> Tensor:
    """Return the lengths of the steps that start at distances t."""
    if strides.contracted:
        return contracted_steps(rays.origins, rays.directions, t, strides.step)
    return torch.full_like(t, strides.step)


def in_grid(points: Tensor, table: VoxelTable, strides: Strides) -> Tensor:
    """Return the positions of points in the grid, in voxels."""
    return (contract(points) + 2) * (table.shape[0] / 4) if strides.contracted else points
