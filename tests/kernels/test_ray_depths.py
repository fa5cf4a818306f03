"""How far away what rays see is: against the definition, and against literal loops of the formulas."""

import itertools
import math

import pytest
import torch

from check_kernel import assert_same_bits, num_threads
from unrender.errors import InputError, ShapeError
from unrender.kernels.composite import composite
from unrender.kernels.ray_depths import ray_depths


def some_rays(dtype=torch.float64, count=200):
    """Return density, distances, lengths and offsets; some rays are empty, some opaque, some without samples."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 30, (count,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    lengths = torch.rand(int(offsets[-1]), generator=generator, dtype=torch.float64) * 0.1
    lengths[::17] = 0
    distances, density = torch.empty_like(lengths), 10 * torch.rand(lengths.shape, generator=generator) ** 4
    for begin, end in itertools.pairwise(offsets):
        ends = 2 + lengths[begin:end].cumsum(0) + 0.05 * torch.arange(end - begin)
        distances[begin:end] = ends - lengths[begin:end] / 2
        density[begin:end] *= float(torch.randint(0, 3, (1,), generator=generator)) ** 4
    return *(t.to(dtype) for t in (density, distances, lengths)), offsets


def loop(density, distances, lengths, threshold):
    """Integrate one ray literally: weightᵢ = alphaᵢ Π_{j<i} (1 − alphaⱼ), alphaᵢ = 1 − exp(−densityᵢ lengthᵢ)."""
    light, weights = 1.0, []
    for sigma, length in zip(density, lengths, strict=True):
        alpha = 1 - math.exp(-sigma * length)
        weights.append(alpha * light)
        light *= 1 - alpha
    total = sum(weights)
    if total == 0:
        return [0.0] * 4
    mean = sum(w * t for w, t in zip(weights, distances, strict=True)) / total
    moment = sum(
        w * ((t - mean) ** 2 + n * n / 12) for w, t, n in zip(weights, distances, lengths, strict=True)
    )
    crossings = []
    for wanted in (total / 2, threshold):
        before, found = 0.0, 0.0
        for w, t, length in zip(weights, distances, lengths, strict=True):
            if w > 0 and before < wanted <= before + w:
                found = t - length / 2 + length * (wanted - before) / w
            before += w
        crossings.append(found)
    return [mean, *crossings, math.sqrt(moment / total)]


def test_agrees_with_literal_loops():
    density, distances, lengths, offsets = some_rays()
    seen = composite(density, lengths, distances=distances, offsets=offsets)
    found = ray_depths(seen.weights, distances, lengths, offsets, threshold=0.3)
    rows = [
        loop(*(t[begin:end].tolist() for t in (density, distances, lengths)), 0.3)
        for begin, end in itertools.pairwise(offsets)
    ]
    torch.testing.assert_close(torch.stack(found[:4], -1), torch.tensor(rows, dtype=torch.float64))
    expected = seen.distance
    torch.testing.assert_close(found.expected, expected)
    assert 10 < int((found.first > 0).sum()) < int((found.median > 0).sum()) < len(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_the_definition(monkeypatch, dtype):
    density, distances, lengths, offsets = some_rays(dtype)
    weights = composite(density, lengths, offsets=offsets).weights
    fast = []
    for threads in (1, 2):
        with num_threads(threads):
            fast.append(ray_depths(weights, distances, lengths, offsets, bound=0.05))
    assert_same_bits(*fast)
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    definition = ray_depths(weights, distances, lengths, offsets, bound=0.05)
    torch.testing.assert_close(fast[0], definition)


def test_one_surface_two_surfaces_and_none():
    offsets = torch.tensor([0, 1, 3, 4, 4])
    weights = torch.tensor([1.0, 0.4, 0.6, 0.0])
    distances, lengths = torch.tensor([2.0, 1.0, 3.0, 5.0]), torch.full((4,), 0.01)
    found = ray_depths(weights, distances, lengths, offsets, threshold=0.5)
    torch.testing.assert_close(found.expected, torch.tensor([2.0, 2.2, 0, 0]))
    torch.testing.assert_close(found.median, torch.tensor([2.0, 3.0 + 0.01 * (1 / 6 - 0.5), 0, 0]))
    torch.testing.assert_close(found.first, found.median)
    torch.testing.assert_close(found.std[:2], torch.tensor([0.01 / 12**0.5, 0.96**0.5]), rtol=1e-4, atol=0)
    torch.testing.assert_close(found.near_median, torch.tensor([1.0, 0.6, 0, 0]))


def test_wrong_input_is_named():
    one, offsets = torch.ones(1), torch.tensor([0, 1])
    with pytest.raises(InputError, match="`threshold` and `bound` should be above 0 and below 1"):
        ray_depths(one, one, one, offsets, threshold=1.0)
    with pytest.raises(InputError, match="should rise from 0 to the number of samples"):
        ray_depths(one, one, one, offsets + 1)
    with pytest.raises(ShapeError, match="ray_depths: `distances`"):
        ray_depths(one, one[None], one, offsets)
