import pytest
import torch

from check_kernel import implementations, needs_warp, run
from unrender import HashLevels, hash_grid, sample_grid
from unrender.kernels.march_grid import march_grid

LEVELS = HashLevels((4,), 7)


def table_gradient(cotangent: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    table = torch.zeros(LEVELS.num_entries, cotangent.shape[1], requires_grad=True)
    with implementations("warp"):
        hash_grid(points, table, LEVELS).backward(cotangent)
    assert table.grad is not None
    return table.grad


@needs_warp
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e30])
def test_sums_of_all_sizes_are_exact_to_single_precision(size):
    points = torch.full((5000, 3), 0.3)
    cotangent = size * torch.rand(5000, 2, generator=torch.Generator().manual_seed(0))
    found = table_gradient(cotangent, points).double().sum(0)
    torch.testing.assert_close(found, cotangent.double().sum(0), rtol=1e-6, atol=0)


@needs_warp
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_surfaces(value):
    points = torch.rand(9, 3, generator=torch.Generator().manual_seed(0))
    cotangent = torch.ones(9, 2)
    cotangent[4, 1] = value
    assert table_gradient(cotangent, points).isnan().any()
    grid = torch.ones(3, 3, 3, 2, requires_grad=True)
    with implementations("warp"):
        sample_grid(grid, 3 * points).backward(cotangent)
        assert grid.grad is not None
        assert grid.grad.isnan().any()
        grid.grad = None
        seen = march_grid(grid / 4, 3 * points, torch.ones(9, 3), torch.linspace(0, 1, 4)[None])
        seen.color.backward(cotangent[:, 1:])
    assert grid.grad is not None
    assert grid.grad.isnan().any()


@needs_warp
def test_no_terms_are_no_gradient():
    assert not table_gradient(torch.ones(0, 2), torch.ones(0, 3)).any()
    with implementations("warp"):
        found = run(
            lambda points, table: hash_grid(points, table, LEVELS),
            [torch.full((3, 3), 2.0), torch.ones(LEVELS.num_entries, 2)],
        )
    assert not any(bool(result.any()) for result in found)
