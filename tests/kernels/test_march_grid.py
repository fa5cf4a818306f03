import math

import pytest
import torch
from torch import Tensor

from check_kernel import check_kernel
from unrender.errors import ShapeError
from unrender.kernels.composite import composite_alphas
from unrender.kernels.march_grid import march_grid
from unrender.kernels.sample_grid import sample_grid


def scene(channels: int = 4, rows: int = 60) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rays that cross a grid, touch it, and miss it."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.rand(5, 4, 6, channels, generator=generator)
    origins = torch.rand(60, 3, generator=generator) * 12 - 3
    directions = torch.randn(60, 3, generator=generator)
    return grid, origins, directions, torch.rand(rows, 20, generator=generator).cumsum(-1)


@pytest.mark.parametrize("rows", [1, 60])
@pytest.mark.parametrize("channels", [1, 4])
def test_agrees_with_the_definition(channels, rows):
    grid, *rays = scene(channels, rows)
    check_kernel(lambda leaf: march_grid(leaf, *(t.to(leaf) for t in rays)), [grid])


def test_is_look_up_and_compositing(monkeypatch):
    monkeypatch.setattr("unrender.kernels.march_grid.cpu.SAMPLES_AT_ONCE", 100)  # several times
    grid, origins, directions, distances = scene()
    grid.requires_grad_()
    seen = march_grid(grid, origins, directions, distances)
    points = origins[:, None] + distances[..., None] * directions[:, None]
    found = sample_grid(grid, points.view(-1, 3)).view(60, 20, 4)
    expected = composite_alphas(found[..., 0], found[..., 1:])
    torch.testing.assert_close(seen.color, expected.color)
    torch.testing.assert_close(seen.opacity, expected.opacity)
    ours, theirs = (
        torch.autograd.grad(x.color.square().sum() + x.opacity.sum(), grid)[0] for x in (seen, expected)
    )
    torch.testing.assert_close(ours, theirs)


def test_opaque_and_empty_grids_and_lost_rays():
    _, origins, directions, distances = scene()
    for value in (0.0, 1.0):
        grid = torch.full((5, 4, 6, 4), value, requires_grad=True)
        seen = march_grid(grid, origins, directions, distances)
        seen.color.sum().backward()
        assert grid.grad.isfinite().all()
        assert seen.opacity.max() == value
    lost = march_grid(torch.ones(2, 2, 2, 4), origins * math.nan, directions, distances)
    assert not lost.opacity.any()
    assert march_grid(torch.ones(2, 2, 2, 4), origins[:0], directions[:0], distances[:1]).color.shape == (
        0,
        3,
    )
    assert not march_grid(torch.ones(2, 2, 2, 4), origins, directions, distances[:, :0]).opacity.any()


def test_says_what_is_wrong():
    grid, origins, directions, distances = scene()
    with pytest.raises(ShapeError, match="#rays samples"):
        march_grid(grid, origins, directions, distances[:7])
    with pytest.raises(ShapeError, match="for the alphas"):
        march_grid(grid[..., :0], origins, directions, distances)
