import pytest
import torch

from check_kernel import check_kernel, either_kernel, implementations
from unrender.errors import InputError
from unrender.kernels.rasterize_points import rasterize_discs


def _cloud(count=40):
    generator = torch.Generator().manual_seed(2)
    points = torch.rand(2, count, 3, generator=generator) * torch.tensor([24.0, 18, 5]) - torch.tensor(
        [2, 2, 0.5]
    )
    return points, 0.3 + 3 * torch.rand(2, count, generator=generator)


def test_agrees_with_the_reference():
    points, radii = _cloud()

    def op(points):
        found = rasterize_discs(points, radii.to(points), height=14, width=19, layers=4)
        return found.depth, found.squared_distance, found.point_ids

    check_kernel(op, [points])


@either_kernel
def test_covers_discs(kernels):
    points = torch.tensor(
        [[5.5, 4.5, 2.0], [5.5, 4.5, 1.0], [5.5, 4.5, -1.0], [torch.nan, 0, 0], [6.5, 4.5, 1.0]]
    )
    with implementations(kernels):
        found = rasterize_discs(points, torch.tensor([1.0, 2.5, 9, 9, 1.5]), height=9, width=12, layers=3)
    assert found.point_ids[4, 5].tolist() == [1, 4, 0]
    assert found.depth[4, 5].tolist() == [1, 1, 2]
    assert found.squared_distance[4, 5].tolist() == [0, 1, 0]
    assert found.point_ids[4, 4].tolist() == [1, -1, -1]  # exactly one radius away from point 0
    assert found.point_ids[0, 0].tolist() == [-1, -1, -1]
    disc = (found.point_ids == 1).any(-1)
    assert int(disc.sum()) == 21


@either_kernel
def test_layers_drop_the_farthest(kernels):
    points, radii = _cloud(60)
    with implementations(kernels):
        few = rasterize_discs(points, radii, height=14, width=19, layers=2)
        many = rasterize_discs(points, radii, height=14, width=19, layers=20)
    assert torch.equal(few.point_ids, many.point_ids[..., :2])
    assert torch.equal(few.depth, many.depth[..., :2])


@either_kernel
def test_no_points_and_huge_radii(kernels):
    with implementations(kernels):
        empty = rasterize_discs(torch.zeros(0, 3), torch.zeros(0), height=2, width=3, layers=2)
        whole = rasterize_discs(torch.zeros(1, 3), torch.full((1,), 1e8), height=2, width=3, layers=1)
    assert (empty.point_ids == -1).all()
    assert (whole.point_ids == 0).all()


def test_says_what_is_wrong():
    with pytest.raises(InputError, match="at least 1, got 0"):
        rasterize_discs(torch.zeros(1, 3), torch.ones(1), height=0, width=3)
