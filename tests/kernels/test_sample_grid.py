import math

import pytest
import torch
from torch import Tensor

from check_kernel import assert_same_bits, check_kernel, num_threads, run
from unrender import ShapeError, sample_grid


def scene(channels: int = 3, num: int = 300) -> tuple[Tensor, Tensor]:
    """Create a grid and points inside, around and far from it, none where the gradient is discontinuous."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.randn(2, 5, 4, 6, channels, generator=generator)
    inside = torch.rand(2, num, 3, generator=generator) * torch.tensor([9.0, 7.0, 8.0]) - 1.5
    part = inside.sub(0.5).frac()
    return grid, inside.where((part.abs() > 0.02) & (part.abs() < 0.98), inside + 0.1)


@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_matches_the_reference(channels):
    check_kernel(sample_grid, scene(channels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matches_grid_sample(dtype):
    grid, points = (t.to(dtype) for t in scene())
    size = torch.tensor([6, 4, 5], dtype=dtype)
    theirs = torch.nn.functional.grid_sample(
        grid.movedim(-1, 1), (2 * points / size - 1)[:, :, None, None], align_corners=False
    )[..., 0, 0].mT
    torch.testing.assert_close(sample_grid(grid, points), theirs)


def test_values_at_centers_and_zero_padding():
    grid = torch.arange(24.0).reshape(2, 3, 4, 1) + 1
    k, j, i = torch.meshgrid(*(torch.arange(n) for n in (2, 3, 4)), indexing="ij")
    centers = torch.stack([i, j, k], -1).reshape(-1, 3) + 0.5
    assert torch.equal(sample_grid(grid, centers).view(2, 3, 4, 1), grid)
    outside = torch.tensor([[-0.5, 1, 1], [1, 3.5, 1], [1, 1, math.inf], [math.nan, 1, 1], [1e30, 1, 1]])
    for points in (outside, -outside.flip(-1)):
        found, *gradients = run(sample_grid, [grid, points])
        assert not found.any()
        assert not torch.cat([g.flatten() for g in gradients]).any()
    assert sample_grid(grid, torch.tensor([[0.0, 0.5, 0.5]])).item() == 0.5


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_non_finite_points_have_no_values_and_gradients(monkeypatch, kernels):
    monkeypatch.setenv("UNRENDER_KERNELS", kernels)
    grid = torch.ones(2, 2, 2, 1, requires_grad=True)
    points = torch.tensor([[math.nan, 1, 1], [1, -math.inf, 1], [1, 1, 1]], requires_grad=True)
    found = sample_grid(grid, points)
    found.sum().backward()
    assert found.tolist() == [[0.0], [0.0], [1.0]]
    assert torch.equal(grid.grad, torch.full_like(grid, 1 / 8))
    assert not points.grad.any()


def test_results_do_not_depend_on_the_number_of_threads():
    generator = torch.Generator().manual_seed(1)
    inputs = [
        torch.randn(33, 20, 20, 4, generator=generator),
        35 * torch.rand(50_000, 3, generator=generator),
    ]
    results = []
    for threads in (1, 2):
        with num_threads(threads):
            results.append(run(sample_grid, inputs))
    assert_same_bits(*results)


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (1, 3, 2, 1), (2, 1, 1, 1)])
@pytest.mark.parametrize("num", [0, 1, 50])
def test_small_grids_and_few_points(shape, num):
    points = 3 * torch.rand(num, 3, generator=torch.Generator().manual_seed(0)) - 1
    check_kernel(sample_grid, [torch.rand(shape), points])


def test_dtypes_should_agree():
    with pytest.raises(ShapeError, match="sample_grid: `points` should have the dtype of `grid`"):
        sample_grid(torch.rand(1, 1, 1, 1), torch.rand(1, 3, dtype=torch.float64))
