"""Depth supervision loss."""

import pytest
import torch

from unrender import InputError, depth_loss


def rays(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    offsets = torch.tensor([0, 3, 3, 8, 9])
    weights = torch.rand(9, generator=generator, dtype=dtype) / 5
    distances = torch.cat([torch.rand(n, generator=generator, dtype=dtype).sort().values for n in (3, 5, 1)])
    return weights, distances + 1, offsets, torch.tensor([1.5, 2.0, 1.2, 1.9], dtype=dtype)


def test_matches_the_definition():
    weights, distances, offsets, known = rays()
    total = 0.0
    for ray in range(4):
        for i in range(offsets[ray], offsets[ray + 1]):
            x = abs(distances[i] - known[ray]) / (0.05 * known[ray])
            total += weights[i] * x / (1 + x)
        total += 1 - weights[offsets[ray] : offsets[ray + 1]].sum()
    torch.testing.assert_close(depth_loss(weights, distances, offsets, known, tolerance=0.05), total / 4)


def test_gradients():
    weights, distances, offsets, known = rays()
    inputs = [t.requires_grad_() for t in (weights, distances, known)]
    assert torch.autograd.gradcheck(lambda w, t, k: depth_loss(w, t, offsets, k), inputs)


def test_zero_at_the_target_and_one_without_weight_there():
    offsets, known = torch.tensor([0, 1]), torch.tensor([2.0])
    assert float(depth_loss(torch.ones(1), torch.tensor([2.0]), offsets, known)) == 0
    assert float(depth_loss(torch.zeros(1), torch.tensor([2.0]), offsets, known)) == 1
    assert float(depth_loss(torch.ones(1), torch.tensor([2000.0]), offsets, known)) > 0.999


def test_no_rays():
    nothing = torch.zeros(0, requires_grad=True)
    loss = depth_loss(nothing, nothing, torch.zeros(1, dtype=torch.int64), torch.zeros(0))
    loss.backward()
    assert float(loss.detach()) == 0


def test_invalid_arguments_are_rejected():
    weights, distances, offsets, known = rays()
    with pytest.raises(InputError, match="`offsets` has 4 rays and `target` 3"):
        depth_loss(weights, distances, offsets, known[1:])
    with pytest.raises(InputError, match="`tolerance` should be positive and finite, got 0"):
        depth_loss(weights, distances, offsets, known, tolerance=0)
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="`target` should be positive and finite"):
            depth_loss(weights, distances, offsets, torch.full_like(known, wrong))
