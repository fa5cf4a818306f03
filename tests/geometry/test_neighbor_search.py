import pytest
import torch

from unrender import ball_query, farthest_points
from unrender.errors import InputError


def test_farthest_points_on_a_line():
    points = torch.tensor([[0.0], [1], [10], [6], [9]])
    assert farthest_points(points, 3).tolist() == [0, 2, 3]
    assert farthest_points(points, 2, start=2).tolist() == [2, 0]
    assert sorted(farthest_points(points, 99).tolist()) == [0, 1, 2, 3, 4]
    assert farthest_points(torch.zeros(0, 3), 4).shape == (0,)


def test_farthest_points_are_farther_apart_than_chance():
    torch.manual_seed(0)
    points = torch.rand(500, 3)
    chosen = points[farthest_points(points, 20)]
    spread = torch.pdist(chosen).min()
    assert spread > 4 * torch.pdist(points[:20]).min()


def test_ball_query():
    points = torch.tensor([[0.0, 0], [3, 0], [0.1, 0], [0.2, 0]])
    queries = torch.zeros(1, 2, requires_grad=True)
    distances, ids = ball_query(queries, points, 0.5, 2)
    assert ids.tolist() == [[0, 2]]
    torch.testing.assert_close(distances, torch.tensor([[0.0, 0.01]]))
    distances.sum().backward()
    torch.testing.assert_close(queries.grad, torch.tensor([[-0.2, 0.0]]))
    distances, ids = ball_query(torch.ones(1, 2), points, 0.5, 5)
    assert ids.tolist() == [[-1] * 5]
    assert not distances.any()
    assert ball_query(torch.zeros(2, 3), torch.zeros(0, 3), 1.0, 2).ids.tolist() == [[-1, -1]] * 2


def test_says_what_is_wrong():
    with pytest.raises(InputError, match="`radius` should be positive"):
        ball_query(torch.zeros(1, 3), torch.zeros(1, 3), 0.0, 1)
    with pytest.raises(InputError, match="`start` should be 0 to 1"):
        farthest_points(torch.zeros(2, 3), 1, start=2)
