"""Distortion loss."""

import pytest
import torch

from unrender import InputError, distortion_loss


def rays(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    offsets = torch.tensor([0, 3, 3, 8, 9])
    weights, lengths = torch.rand(2, 9, generator=generator, dtype=dtype)
    places = torch.cat([torch.rand(n, generator=generator, dtype=dtype).sort().values for n in (3, 5, 1)])
    return weights, places, lengths, offsets


def by_definition(weights, places, lengths, offsets):
    total = 0.0
    for ray in range(len(offsets) - 1):
        w, s, d = (t[offsets[ray] : offsets[ray + 1]] for t in (weights, places, lengths))
        total += (w[:, None] * w * (s[:, None] - s).abs()).sum() + (w**2 * d).sum() / 3
    return total / (len(offsets) - 1)


def test_matches_the_definition():
    torch.testing.assert_close(distortion_loss(*rays()), by_definition(*rays()))
    weights, places, lengths, offsets = rays(torch.float32)
    assert distortion_loss(weights, places, lengths, offsets).dtype == torch.float32


def test_gradients():
    *inputs, offsets = rays()
    inputs = [t.requires_grad_() for t in inputs]
    assert torch.autograd.gradcheck(lambda w, s, d: distortion_loss(w, s, d, offsets), inputs)


def test_concentrated_weights_have_a_smaller_loss():
    places, lengths = torch.linspace(0, 1, 10), torch.full((10,), 0.1)
    offsets = torch.tensor([0, 10])
    sharp = torch.zeros(10)
    sharp[4] = 1
    spread = torch.full((10,), 0.1)
    assert distortion_loss(sharp, places, lengths, offsets) < distortion_loss(
        spread, places, lengths, offsets
    )


def test_no_rays():
    nothing = torch.zeros(0)
    assert float(distortion_loss(nothing, nothing, nothing, torch.zeros(1, dtype=torch.int64))) == 0
    with pytest.raises(InputError, match="offsets"):
        distortion_loss(torch.ones(3), torch.ones(3), torch.ones(3), torch.tensor([0, 2]))
