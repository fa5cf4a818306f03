"""The modeled region of space, and its contraction."""

import pytest
import torch

from unrender import InputError, Rays, SceneBox


@pytest.mark.parametrize("contracted", [False, True])
def test_normalized_coordinates_and_back(contracted: bool) -> None:
    half_extent = torch.tensor([0.7, 0.3, 1.1], dtype=torch.float64)
    box = SceneBox(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), half_extent, contracted)
    points = box.center + 3 * torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).double()
    coordinates = box.normalize(points)
    assert torch.allclose(box.denormalize(coordinates), points)
    inside = ((coordinates >= 0) & (coordinates <= 1)).all(-1)
    assert torch.equal(inside, box.contains(points))
    assert contracted == bool(inside.all())


def test_the_box_is_the_inner_half_of_contracted_space() -> None:
    box = SceneBox.cube(torch.zeros(3), 2.0, contracted=True)
    points = torch.tensor([[2.0, -2.0, 2.0], [1e9, 0.0, 0.0]])
    expected = torch.tensor([[0.75, 0.25, 0.75], [1.0, 0.5, 0.5]])
    assert torch.allclose(box.normalize(points), expected)


def test_rays_enter_and_leave_the_box() -> None:
    box = SceneBox(torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 2.0]))
    rays = Rays(
        torch.tensor([[0.0, 0.0, -5.0], [0.0, 0.0, 0.0], [5.0, 0.0, -5.0]]),
        torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3),
    )
    t_near, t_far = box.intersect(rays, near=0.5)
    assert t_near[:2].tolist() == [4.0, 0.5]
    assert t_far[:2].tolist() == [8.0, 3.0]
    assert t_far[2] <= t_near[2]
    t_near, t_far = box.replace(contracted=True).intersect(rays, near=0.5)
    assert t_near.tolist() == [0.5] * 3
    assert t_far.tolist() == [2000.0] * 3
    nan = rays.replace(directions=rays.directions * torch.nan)
    assert bool((box.replace(contracted=True).intersect(nan).t_far == 0).all())


def test_steps_have_one_length_in_contracted_space() -> None:
    box = SceneBox.cube(torch.tensor([0.1, 0.2, -0.1], dtype=torch.float64), 1.5, contracted=True)
    rays = Rays(
        box.center[None].clone(),
        torch.nn.functional.normalize(torch.tensor([[1.0, 0.6, 0.3]]).double(), dim=-1),
    )
    t, lengths = torch.zeros(1).double(), []
    for _ in range(900):
        step = box.step_lengths(rays, t, 1e-3)
        ends = [rays.origins + d * rays.directions for d in (t, t + step)]
        lengths.append(float((box.normalize(ends[1]) - box.normalize(ends[0])).norm()) * 4 * 1.5)
        t = t + step * 4
    assert max(lengths) < 1.01e-3
    assert min(lengths) > 0.95e-3


def test_a_box_moves_as_a_whole() -> None:
    box = SceneBox.cube(torch.zeros(3), 2.0).to(torch.float64)
    assert box.center.dtype == box.half_extent.dtype == torch.float64


@pytest.mark.parametrize("half_extent", [0.0, -1.0, float("nan"), float("inf")])
def test_a_box_without_size_is_refused(half_extent: float) -> None:
    with pytest.raises(InputError, match="half_extent"):
        SceneBox.cube(torch.zeros(3), half_extent)
