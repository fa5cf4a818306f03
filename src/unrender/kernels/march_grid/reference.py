"""Reference implementation of ray marching of a dense voxel grid."""

import torch
from torch import Tensor

from unrender.kernels.sample_grid import reference


def forward(grid: Tensor, origins: Tensor, directions: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Sample the grid along each ray, and composite the samples.

    alpha_i, color_i = grid at origin + distance_i · direction, trilinear in voxels (see `sample_grid`)
    weight_i         = alpha_i Π_{j<i} (1 − alpha_j)

    Returns Σ weight · color and Σ weight.
    """
    points = origins[:, None] + distances[..., None] * directions[:, None]
    found = reference.forward(grid, points.reshape(-1, 3)).view(*points.shape[:2], grid.shape[-1])
    alphas, color = found[..., 0], found[..., 1:]
    transmittance = torch.cat([torch.ones_like(alphas[:, :1]), 1 - alphas[:, :-1]], 1).cumprod(1)
    weights = transmittance * alphas
    return (weights[..., None] * color).sum(1), weights.sum(1)
