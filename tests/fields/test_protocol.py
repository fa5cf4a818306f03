"""Where fields lie in the world."""

import pytest
import torch

from unrender import FieldSpace, InputError


@pytest.mark.parametrize("contracted", [False, True])
def test_cube_and_back(contracted: bool) -> None:
    space = FieldSpace(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), 0.7, contracted)
    points = space.middle + 3 * torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).double()
    places = space.into_cube(points)
    assert torch.allclose(space.from_cube(places), points)
    inside = ((places >= 0) & (places <= 1)).all(-1)
    assert torch.equal(inside, space.holds(points))
    assert contracted == bool(inside.all())


def test_the_cube_is_the_inner_half_of_all_space() -> None:
    space = FieldSpace(torch.zeros(3), 2.0, contracted=True)
    corner = torch.tensor([[2.0, -2.0, 2.0], [1e9, 0.0, 0.0]])
    expected = torch.tensor([[0.75, 0.25, 0.75], [1.0, 0.5, 0.5]])
    assert torch.allclose(space.into_cube(corner), expected)


def test_a_cube_without_size_is_refused() -> None:
    with pytest.raises(InputError, match="half_side"):
        FieldSpace(torch.zeros(3), 0.0)
