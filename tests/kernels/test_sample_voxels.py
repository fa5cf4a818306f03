"""Look-up in sparse voxels."""

import pytest
import torch

from check_kernel import assert_same_bits, num_threads
from unrender.kernels.march_voxels.table import VoxelTable
from unrender.kernels.sample_voxels import sample_voxels


def given(dtype=torch.float32, count=3000):
    generator = torch.Generator().manual_seed(0)
    table = VoxelTable.from_mask(torch.rand(8, 4, 12, generator=generator) < 0.4)
    places = torch.rand(count, 3, generator=generator) * torch.tensor([10.0, 6.0, 14.0]) - 1
    places[: count // 10] = places[: count // 10].round()  # on corners and borders
    return torch.randn(table.num_corners, generator=generator).to(dtype), places.to(dtype), table


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_the_definition(monkeypatch, dtype):
    fast = []
    for threads in (1, 2):
        with num_threads(threads):
            fast.append(sample_voxels(*given(dtype), outside=-9.0))
    assert_same_bits(fast[:1], fast[1:])
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    definition = sample_voxels(*given(dtype), outside=-9.0)
    assert 0.05 < float((definition > -9).float().mean()) < 0.5
    torch.testing.assert_close(fast[0], definition)


def test_a_corner_has_its_value_and_nothing_is_beyond():
    values, _, table = given()
    places = table.corner_positions.to(torch.float32)
    found = sample_voxels(values, places, table, outside=torch.inf)
    assert bool(((found == values) | (found == torch.inf)).all())
    assert bool((found == values).any())
    beyond = torch.tensor([[-0.01, 1, 1], [1, 4.01, 1], [torch.nan, 1, 1], [1e30, 1, 1]])
    assert sample_voxels(values, beyond, table, outside=-1.0).tolist() == [-1.0] * 4
    assert len(sample_voxels(values, places[:0], table, outside=0.0)) == 0
