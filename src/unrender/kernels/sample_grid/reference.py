"""Trilinear look-up in a voxel grid, by the definition."""

from itertools import product

import torch
from torch import Tensor


def forward(grid: Tensor, points: Tensor) -> Tensor:
    """Mix the eight voxels whose centers are around each point: Σ Π_axis (1 − |p_axis − center_axis|) · value.

    `grid` [depth, height, width, channels], `points` [points, 3] as (x, y, z) in voxels; the center of voxel [k, j, i]
    is at (i, j, k) + 0.5. Voxels beyond the grid are 0; so is a point that is not finite.
    """
    depth, height, width, channels = grid.shape
    size = points.new_tensor([width, height, depth])
    near = ((points > -1) & (points < size + 1)).all(-1, keepdim=True)
    corner_space = torch.where(near, points, 0) - 0.5
    base = corner_space.detach().floor()
    flat = grid.reshape(-1, channels)
    mixed = grid.new_zeros(len(points), channels)
    for step in product((0, 1), repeat=3):
        place = base + points.new_tensor(step)
        share = (1 - (corner_space - place).abs()).prod(-1, keepdim=True)
        inside = near & ((place >= 0) & (place < size)).all(-1, keepdim=True)
        x, y, z = torch.where(inside, place, 0).long().unbind(-1)
        mixed = mixed + torch.where(inside, share * flat[(z * height + y) * width + x], 0)
    return mixed
