import math

import pytest
import torch

from check_kernel import assert_same_bits, num_threads
from unrender import InputError
from unrender.kernels.walk_space import blocks_of
from unrender.kernels.walk_space import walk_space as walk_space_past_blocks
from unrender.kernels.walk_space.cpu import NOTED


def walk_space(occupied, *rays, **settings):
    return walk_space_past_blocks(occupied, blocks_of(occupied), *rays, **settings)


def scene(share=0.2, rays=300, side=20):
    generator = torch.Generator().manual_seed(0)
    occupied = torch.rand(side, side, side, generator=generator) < share
    occupied[:, :, 5:16] = False
    origins = 4 * torch.rand(rays, 3, generator=generator, dtype=torch.float64) - 2
    directions = torch.randn(rays, 3, generator=generator, dtype=torch.float64)
    directions[: rays // 4] *= torch.eye(3, dtype=torch.float64)[torch.arange(rays // 4) % 3]
    near, jitter = torch.rand(2, rays, generator=generator, dtype=torch.float64)
    return occupied, origins, directions, near, near + 5, jitter


@pytest.mark.parametrize("contracted", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_keeps_what_the_definition_keeps(monkeypatch, contracted, share):
    fast = []
    for threads in (1, 2):
        with num_threads(threads):
            fast.append(walk_space(*scene(share), step=0.021, contracted=contracted))
    assert_same_bits(*fast)
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    definition = walk_space(*scene(share), step=0.021, contracted=contracted)
    assert torch.equal(fast[0].offsets, definition.offsets)
    torch.testing.assert_close(fast[0].distances, definition.distances)
    torch.testing.assert_close(fast[0].lengths, definition.lengths)
    assert (len(definition.distances) > 0) == (share > 0)
    if share == 1 and contracted:
        assert definition.offsets.diff().min() < NOTED < definition.offsets.diff().max()


def test_steps_grow_with_the_distance_where_space_is_bent():
    origins, directions = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]])
    ends = torch.zeros(1), torch.full((1,), 500.0)
    walk = walk_space(
        torch.ones(4, 4, 4).bool(), origins, directions, *ends, torch.zeros(1), step=0.1, contracted=True
    )
    inside = walk.distances <= 1
    assert torch.allclose(walk.lengths[inside], torch.tensor(0.1))
    assert bool((walk.lengths[~inside].diff() > 0).all())
    bent = (2 - 1 / walk.distances[~inside]).diff()
    assert bool((bent < 0.11).all())
    assert len(walk.distances) < 60


def test_no_rays_and_no_way():
    occupied, *rays = scene(1.0)
    assert walk_space(occupied, *(t[:0] for t in rays), step=0.1).offsets.tolist() == [0]
    origins, directions, near, far, jitter = rays
    assert (
        len(walk_space(occupied, origins, directions * math.nan, near, far, jitter, step=0.1).distances) == 0
    )
    assert len(walk_space(occupied, origins, directions, far, near, jitter, step=0.1).distances) == 0


def test_endless_walks_are_refused():
    occupied, origins, directions, near, far, jitter = scene()
    with pytest.raises(InputError, match="finite"):
        walk_space(occupied, origins, directions, near, torch.full_like(far, math.inf), jitter, step=0.1)
    with pytest.raises(InputError, match="blocks_of"):
        walk_space_past_blocks(occupied, occupied, origins, directions, near, far, jitter, step=0.1)
    with pytest.raises(InputError, match="step"):
        walk_space(occupied, origins, directions, near, far, jitter, step=0.0)
