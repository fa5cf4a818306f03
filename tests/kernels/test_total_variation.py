"""How much neighbours differ."""

import torch

from check_kernel import check_kernel
from unrender.kernels.march_voxels.table import VoxelTable
from unrender.kernels.total_variation import total_variation


def corners_of_some_voxels() -> VoxelTable:
    return VoxelTable.from_mask(torch.rand(8, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.4)


def test_roughness_agrees_with_its_reference():
    table = corners_of_some_voxels()
    neighbors = table.neighbors()
    check_kernel(lambda values: total_variation(values, neighbors), [torch.randn(table.num_corners, 5)])


def test_a_slope_is_as_rough_as_its_steps():
    table = corners_of_some_voxels()
    slope = table.corner_positions.float() * torch.tensor([0.0, 0.0, 3.0])
    along_z = (table.neighbors()[:, 5] >= 0).sum() / (table.neighbors()[:, 1::2] >= 0).sum()
    torch.testing.assert_close(total_variation(slope, table.neighbors()), 9 * along_z)
