import math

import pytest
import torch

from check_kernel import assert_same_bits, num_threads
from unrender import InputError
from unrender.kernels.walk_grid import walk_grid


def scene(dtype=torch.float32, rays=500, share=0.2):
    generator = torch.Generator().manual_seed(0)
    occupied = torch.rand(7, 5, 6, generator=generator) < share
    origins = 12 * torch.rand(rays, 3, generator=generator, dtype=torch.float64) - 3
    directions = torch.randn(rays, 3, generator=generator, dtype=torch.float64)
    directions[: rays // 4] *= torch.eye(3, dtype=torch.float64)[
        torch.arange(rays // 4) % 3
    ]  # along the axes
    near = torch.rand(rays, generator=generator, dtype=torch.float64)
    counts = torch.randint(0, 90, (rays,), generator=generator)
    return occupied, *(t.to(dtype) for t in (origins, directions, near, near + 5)), counts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_keeps_what_the_definition_keeps(monkeypatch, dtype, share):
    fast = []
    for threads in (1, 2):
        with num_threads(threads):
            fast.append(walk_grid(*scene(dtype, share=share)))
    assert_same_bits(*fast)
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    definition = walk_grid(*scene(dtype, share=share))
    assert torch.equal(fast[0].offsets, definition.offsets)
    torch.testing.assert_close(fast[0].distances, definition.distances, rtol=1e-6, atol=0)


def test_no_rays_and_no_way():
    occupied, *rays = scene()
    assert walk_grid(occupied, *(t[:0] for t in rays)).offsets.tolist() == [0]
    origins, directions, near, _, counts = rays
    assert len(walk_grid(occupied, origins, directions * math.nan, near, near, counts).distances) == 0


def test_endless_rays_are_refused():
    occupied, origins, directions, near, _, counts = scene()
    with pytest.raises(InputError, match="clip the rays to the grid"):
        walk_grid(occupied, origins, directions, near, torch.full_like(near, math.inf), counts)
