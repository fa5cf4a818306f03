"""Where rays meet voxels: the fast version against the definition, and both against the march."""

import pytest
import torch

from check_kernel import assert_same_bits, num_threads
from unrender.geometry.rays import Rays, clip_to_box
from unrender.kernels.composite import composite
from unrender.kernels.march_voxels import march_voxels
from unrender.kernels.march_voxels.rays import GridRays, Strides
from unrender.kernels.march_voxels.table import VoxelTable
from unrender.kernels.march_voxels.visible import VoxelSamples, visible_samples
from unrender.kernels.sample_voxels import sample_voxels

SIZE = 12


def some_voxels() -> VoxelTable:
    mask = torch.rand(SIZE, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) < 0.3
    mask[:, 4:8] = False  # a layer of empty bricks
    return VoxelTable.from_mask(mask)


def some_rays(count: int, contracted: bool, dtype: torch.dtype) -> GridRays:
    generator = torch.Generator().manual_seed(2)
    origins, directions = torch.randn(2, count, 3, generator=generator).to(dtype)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    middle, basis = torch.full((count,), 0.5, dtype=dtype), torch.ones(count, 1, dtype=dtype)
    if contracted:
        near = torch.full((count,), 0.05, dtype=dtype)
        return GridRays(origins * 0.7, directions, near, near + 30, middle, basis)
    origins = origins * 3 + SIZE / 2
    low = torch.zeros(3, dtype=dtype)
    return GridRays(
        origins, directions, *clip_to_box(Rays(origins, directions), low, low + SIZE), middle, basis
    )


def given(contracted: bool, dtype: torch.dtype = torch.float64, count: int = 600, **limits: float):
    table = some_voxels()
    log_density = torch.randn(table.num_corners, generator=torch.Generator().manual_seed(3)).to(dtype) - 1
    strides = Strides(0.2 if contracted else 0.7, contracted=contracted, **limits)
    return some_rays(count, contracted, dtype), log_density, table, strides


@pytest.mark.parametrize("contracted", [False, True])
@pytest.mark.parametrize("limits", [{}, {"skip": 1e-2, "stop": 0.1}], ids=["all", "skip and stop"])
def test_keeps_what_the_definition_keeps(contracted, limits, monkeypatch):
    fast: list[VoxelSamples] = []
    for threads in (1, 2):
        with num_threads(threads):
            fast.append(visible_samples(*given(contracted, **limits)))
    assert_same_bits(*fast)
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    definition = visible_samples(*given(contracted, **limits))
    assert len(fast[0].distances) > 500
    assert torch.equal(fast[0].offsets, definition.offsets)
    torch.testing.assert_close(fast[0].distances, definition.distances)
    torch.testing.assert_close(fast[0].lengths, definition.lengths)


def test_a_march_adds_up_these_samples():
    rays, log_density, table, strides = given(False)
    walk = visible_samples(rays, log_density, table, strides)
    ray = torch.arange(600).repeat_interleave(walk.offsets.diff())
    places = rays.origins[ray] + walk.distances[:, None] * rays.directions[ray]
    density = sample_voxels(log_density, places, table, outside=-torch.inf).exp()
    seen = composite(density, walk.lengths, distances=walk.distances, offsets=walk.offsets)
    harmonics = torch.zeros(table.num_corners, 3, dtype=torch.float64)
    expected = march_voxels(rays, log_density, harmonics, table, strides)
    beyond = ((places < 0) | (places > SIZE)).any(
        -1
    )  # of the last step, where the march goes on with what is inside
    same = torch.ones(600, dtype=torch.bool).index_fill(0, ray[beyond], False)
    assert int(same.sum()) > 500
    torch.testing.assert_close(seen.opacity[same], expected.opacity[same])
    torch.testing.assert_close(seen.distance[same], expected.distance[same])


def test_no_rays_and_rays_that_miss():
    rays, *rest = given(False, count=3)
    assert visible_samples(rays.map(lambda t: t[:0]), *rest).offsets.tolist() == [0]
    assert visible_samples(rays.replace(t_far=rays.t_near), *rest).offsets.tolist() == [0] * 4
