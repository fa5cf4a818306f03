"""Reference implementation of interpolation in a sparse voxel grid."""

import torch
from torch import Tensor

from unrender.kernels.march_voxels.reference import locate_voxels
from unrender.kernels.march_voxels.table import VoxelTable


def forward(values: Tensor, points: Tensor, table: VoxelTable, outside: float) -> Tensor:
    """Return Σ weight_q · value_q over the corners q of the voxel at each point; `outside` where there is none."""
    voxel, weights = locate_voxels(points, table)
    within = (points >= 0) & (points <= points.new_tensor(table.shape))
    mixed = (values[table.corners[voxel].long()] * weights).sum(-1)
    return torch.where(within.all(-1) & (voxel >= 0), mixed, outside)
