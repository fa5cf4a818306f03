"""Reference implementation of trilinear interpolation in a voxel grid."""

from itertools import product

import torch
from torch import Tensor


def forward(grid: Tensor, points: Tensor) -> Tensor:
    """Interpolate the eight voxel centers around each point: Σ Π_axis (1 − |p_axis − center_axis|) · value.

    `grid` [depth, height, width, channels], `points` [points, 3] as (x, y, z) in voxels; the center of voxel [k, j, i]
    is at (i, j, k) + 0.5. Voxels outside the grid are 0; so is the result at points that are not finite.
    """
    depth, height, width, channels = grid.shape
    size = points.new_tensor([width, height, depth])
    near = ((points > -1) & (points < size + 1)).all(-1, keepdim=True)
    corner_space = torch.where(near, points, 0) - 0.5
    base = corner_space.detach().floor()
    flat = grid.reshape(-1, channels)
    mixed = grid.new_zeros(len(points), channels)
    for step in product((0, 1), repeat=3):
        voxel = base + points.new_tensor(step)
        weight = (1 - (corner_space - voxel).abs()).prod(-1, keepdim=True)
        inside = near & ((voxel >= 0) & (voxel < size)).all(-1, keepdim=True)
        x, y, z = torch.where(inside, voxel, 0).long().unbind(-1)
        mixed = mixed + torch.where(inside, weight * flat[(z * height + y) * width + x], 0)
    return mixed
