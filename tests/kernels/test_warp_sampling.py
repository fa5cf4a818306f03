"""Kernels in Warp without gradients, on its CPU device, against their definitions."""

import pytest
import torch

from check_kernel import implementations, needs_warp
from unrender.kernels.march_voxels.table import VoxelTable
from unrender.kernels.ray_depths import ray_depths
from unrender.kernels.sample_voxels import sample_voxels
from unrender.kernels.traverse import CellGrid, traverse

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
pytestmark = needs_warp


@DTYPES
@pytest.mark.parametrize("contracted", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_traverse(dtype, contracted, share):
    generator = torch.Generator().manual_seed(0)
    occupied = torch.rand(20, 14, 26, generator=generator) < share
    occupied[:, :, 5:16] = False
    origins = 4 * torch.rand(300, 3, generator=generator, dtype=torch.float64) - 2
    directions = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    directions[:75] *= torch.eye(3, dtype=torch.float64)[torch.arange(75) % 3]
    near, jitter = torch.rand(2, 300, generator=generator, dtype=torch.float64)
    steps = torch.full_like(near, 0.021)
    rays = [t.to(dtype) for t in (origins, directions, near, near + 5, steps, jitter)]
    center, half_extent = torch.zeros(3, dtype=torch.float64), torch.tensor([1.0, 0.8, 1.2]).double()
    grid = CellGrid.from_mask(occupied, center, half_extent, contracted=contracted)
    results = []
    for choice in ("warp", "reference"):
        with implementations(choice) as loaded:
            results.append(traverse(grid.to(dtype), *rays))
            assert bool(loaded) == (choice == "warp")
    assert torch.equal(results[0].offsets, results[1].offsets)
    torch.testing.assert_close(results[0].distances, results[1].distances, rtol=1e-5, atol=3e-5)
    torch.testing.assert_close(results[0].lengths, results[1].lengths, rtol=1e-4, atol=1e-5)


@DTYPES
def test_ray_depths(dtype):
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 30, (200,), generator=generator)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    weights, lengths = (
        torch.rand(2, int(offsets[-1]), generator=generator, dtype=torch.float64).to(dtype) / 20
    )
    lengths[::17] = 0
    weights[::3] = 0
    distances = 1 + lengths.cumsum(0)
    results = []
    for choice in ("warp", "reference"):
        with implementations(choice):
            results.append(ray_depths(weights, distances, lengths, offsets))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@DTYPES
def test_sample_voxels(dtype):
    generator = torch.Generator().manual_seed(0)
    table = VoxelTable.from_mask(torch.rand(8, 4, 12, generator=generator) < 0.4)
    points = torch.rand(3000, 3, generator=generator) * torch.tensor([10.0, 6.0, 14.0]) - 1
    points[:300] = points[:300].round()
    points[-1] = torch.nan
    values, results = torch.randn(table.num_corners, generator=generator).to(dtype), []
    for choice in ("warp", "reference"):
        with implementations(choice):
            results.append(sample_voxels(values, points.to(dtype), table, outside=-9.0))
    assert 0.05 < float((results[1] > -9).float().mean()) < 0.5
    torch.testing.assert_close(*results)
