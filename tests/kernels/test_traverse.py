"""Ray traversal of an occupancy grid: numba against the definition, in every kind of space."""

import math

import pytest
import torch

from check_kernel import assert_same_bits, num_threads
from unrender.errors import InputError
from unrender.kernels.traverse import BLOCK, CellGrid, traverse
from unrender.kernels.traverse.cpu import RECORDED

CENTER, HALF_EXTENT = torch.tensor([0.2, -0.1, 0.4]), torch.tensor([1.0, 0.7, 1.3])


def scene(occupancy=0.1, dtype=torch.float32, contracted=False, count=300):
    """Return cells, box, rays from around and within it, and what rays need; some miss the box."""
    generator = torch.Generator().manual_seed(0)
    occupied = torch.rand(40, 28, 52, generator=generator) < occupancy
    occupied[8:24, :16, 16:40] = False  # whole blocks
    origins = 2 * torch.randn(count, 3, generator=generator)
    origins[: count // 5] = CENTER + 0.2 * torch.randn(count // 5, 3, generator=generator)
    targets = CENTER + HALF_EXTENT * (2 * torch.rand(count, 3, generator=generator) - 1)
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    directions[::7, 1] = 0
    t_near, jitter = 0.1 * torch.rand(2, count, generator=generator)
    t_far = torch.full((count,), 20.0 if contracted else 6.0)
    steps = 0.008 + 0.01 * torch.rand(count, generator=generator)
    grid = CellGrid.from_mask(occupied, CENTER, HALF_EXTENT, contracted=contracted)
    tensors = (origins, directions, t_near, t_far, steps, 9 * jitter)
    return grid.to(dtype), *(t.to(dtype) for t in tensors)


@pytest.mark.parametrize("contracted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("occupancy", [0.0, 0.02, 1.0])
def test_samples_are_those_of_the_definition(monkeypatch, contracted, dtype, occupancy):
    given = scene(occupancy, dtype, contracted)
    fast = []
    for threads in (1, 2):
        with num_threads(threads):
            fast.append(traverse(*given))
    assert_same_bits(*fast)
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    definition = traverse(*given)
    assert torch.equal(fast[0].offsets, definition.offsets)
    tolerance = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}
    # in contracted space, steps grow with the distance, and so does the rounding of their sum
    if contracted and dtype == torch.float32:
        tolerance = {"rtol": 2e-3, "atol": 1e-4}
    torch.testing.assert_close(fast[0].distances, definition.distances, **tolerance)
    torch.testing.assert_close(fast[0].lengths, definition.lengths, **tolerance)
    assert occupancy < 1 or int(fast[0].offsets.diff().max()) > RECORDED  # some rays are traversed twice


@pytest.mark.parametrize("contracted", [False, True])
def test_samples_lie_in_occupied_cells_one_in_each_step(contracted):
    grid, origins, directions, t_near, t_far, steps, jitter = scene(0.1, contracted=contracted)
    found = traverse(grid, origins, directions, t_near, t_far, steps, jitter)
    ray = torch.repeat_interleave(found.offsets.diff())
    assert bool((found.distances < t_far[ray]).all() & (found.distances >= t_near[ray]).all())
    if not contracted:
        number = (found.distances - t_near[ray]) / steps[ray] - jitter[ray]
        torch.testing.assert_close(number, number.round(), atol=1e-2, rtol=0)
        assert torch.equal(found.lengths, steps[ray])
    assert bool((found.distances.diff()[ray.diff() == 0] > 0).all())


def test_a_capacity_bounds_what_is_returned(monkeypatch):
    for _ in range(2):
        given = scene(0.1)
        whole = traverse(*given)
        total = int(whole.offsets[-1])
        roomy, tight = traverse(*given, capacity=total + 100), traverse(*given, capacity=total // 2)
        assert len(roomy.distances) == len(roomy.lengths) == total + 100
        assert len(tight.distances) == total // 2
        assert torch.equal(roomy.distances[:total], whole.distances)
        assert torch.equal(roomy.offsets, whole.offsets)
        assert torch.equal(tight.offsets, whole.offsets)
        fits = int(whole.offsets[(whole.offsets <= total // 2).sum() - 1])
        assert torch.equal(tight.distances[:fits], whole.distances[:fits])
        monkeypatch.setenv("UNRENDER_KERNELS", "reference")


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_rays_that_lead_nowhere_have_no_samples(monkeypatch, kernels):
    monkeypatch.setenv("UNRENDER_KERNELS", kernels)
    for contracted in (False, True):
        grid, origins, directions, t_near, t_far, *rest = scene(1.0, contracted=contracted)
        steps, jitter = rest
        none = traverse(grid, *(t[:0] for t in (origins, directions, t_near, t_far, *rest)))
        assert none.offsets.tolist() == [0]
        nan = traverse(grid, origins, directions * math.nan, t_near, t_far, *rest)
        empty = traverse(grid, origins, directions, t_far, t_near, *rest)
        unchecked = traverse(grid, origins, directions, t_near, t_far * math.inf, -steps, jitter, capacity=9)
        assert not any(bool(found.offsets.any()) for found in (nan, empty, unchecked))


def test_bad_input_is_refused():
    *given, steps, jitter = scene()
    with pytest.raises(InputError, match="`steps` should be lengths > 0"):
        traverse(*given, 0 * steps, jitter)
    with pytest.raises(InputError, match="finite; clip the rays to the box"):
        traverse(*given[:-1], given[-1] * math.inf, steps, jitter)


def test_blocks_cover_their_cells():
    grid = scene(0.001)[0]
    for index in grid.cells.nonzero() // BLOCK:
        assert bool(grid.blocks[tuple(index)])
    assert int(grid.blocks.sum()) < grid.blocks.numel()
