import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from check_kernel import assert_same_bits, check_kernel, num_threads
from unrender import InputError, ShapeError, composite, composite_alphas


def scene(
    rays: int = 7, samples: int = 90, channels: int = 3, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    density, lengths, distances = torch.rand(3, rays, samples, generator=generator, dtype=torch.float64)
    color = torch.rand(rays, samples, channels, generator=generator, dtype=torch.float64)
    return [tensor.to(dtype) for tensor in (3 * density, 0.1 * lengths, color, distances)]


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_matches_the_reference(channels):
    check_kernel(composite, scene(channels=channels))
    alphas, _, color, distances = scene(channels=channels)
    check_kernel(composite_alphas, [alphas / 3, color, distances])


def test_early_termination_matches_the_reference():
    check_kernel(lambda *t: composite(*t, stop_below=0.03), scene())


def test_rays_with_different_numbers_of_samples():
    counts = torch.tensor([0, 5, 130, 0, 1, 0])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    flat = [tensor.reshape(-1, *tensor.shape[2:])[: offsets[-1]] for tensor in scene()]
    ragged = composite(*flat, offsets=offsets)
    for ray, (begin, end) in enumerate(pairwise(offsets.tolist())):
        alone = composite(*(tensor[None, begin:end] for tensor in flat))
        assert torch.equal(alone.weights[0], ragged.weights[begin:end])
        assert_same_bits([t[0] for t in alone[1:]], [t[ray] for t in ragged[1:]])
    rows = [flat[0][:, None], flat[1][:, None], flat[2], flat[3][:, None]]
    check_kernel(lambda d, le, c, t: composite(d[:, 0], le[:, 0], c, t[:, 0], offsets=offsets), rows)


def test_hand_computed_example():
    seen = composite_alphas(
        torch.tensor([0.5, 0.5, 1.0, 0.3]), torch.tensor([[1.0], [2.0], [4.0], [8.0]]), torch.arange(4.0)
    )
    assert seen.weights.tolist() == [0.5, 0.25, 0.25, 0.0]
    assert (seen.opacity, seen.transmittance, seen.color, seen.distance) == (1.0, 0.0, 2.0, 0.75)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distance_matches_a_loop(dtype):
    near, far, count = 2.0, 6.0, 64
    density = (
        scene(rays=20, samples=count, dtype=dtype)[0].pow(3) * torch.linspace(0, 2, 20, dtype=dtype)[:, None]
    )
    step = (far - near) / count
    places = near + (torch.arange(count, dtype=dtype) + 0.5) * step
    seen = composite(density, torch.full_like(density, step), distances=places.expand(20, count))
    for ray, sigmas in enumerate(density.double().tolist()):
        weights = []
        for i, sigma in enumerate(sigmas):
            weights.append(1 - math.exp(-sigma * step))
            for j in range(i):
                weights[i] *= math.exp(-sigmas[j] * step)  # 1 − alpha_j
        total = sum(weights)
        depth = (
            sum(w * t for w, t in zip(weights, places.double().tolist(), strict=True)) / total
            if total
            else 0.0
        )
        found = float(seen.distance[ray])
        assert found == pytest.approx(depth, rel=1e-6 if dtype == torch.float32 else 1e-13)
    assert float(seen.opacity[0]) == float(seen.distance[0]) == 0 < float(seen.opacity.max())


def test_gradients_at_alpha_one_and_zero():
    alphas = torch.tensor(
        [[0.2, 1.0, 0.5], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64
    ).requires_grad_()
    color = torch.rand(3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda a, c: composite_alphas(a, c)[:4], [alphas, color])


@pytest.mark.parametrize("density", [0.0, 1e-30, 50.0, 1e10, math.inf])
@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_gradients_are_finite_for_zero_and_huge_density(monkeypatch, density, kernels):
    monkeypatch.setenv("UNRENDER_KERNELS", kernels)
    leaf = torch.full((2, 100), density, requires_grad=True)
    seen = composite(leaf, torch.full((2, 100), 0.3), torch.rand(2, 100, 3))
    (seen.color.sum() + seen.weights.square().sum() + seen.transmittance.sum()).backward()
    assert leaf.grad.isfinite().all()
    assert seen.opacity.isfinite().all()


def test_small_densities_are_accurate():
    seen = composite(torch.full((1, 10), 1e-9), torch.ones(1, 10))
    torch.testing.assert_close(seen.opacity, torch.tensor([1e-8]), rtol=1e-5, atol=0)


def test_nan_is_propagated():
    assert composite(torch.tensor([[0.1, math.nan, 0.1]]), torch.ones(1, 3)).opacity.isnan().all()


@given(st.integers(0, 5), st.integers(0, 200), st.floats(0, 0.5), st.floats(0.0, 30.0), st.integers(0, 99))
def test_weights_and_transmittance_sum_to_one(rays, samples, stop_below, most, seed):
    density = most * torch.rand(
        rays, samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    seen = composite(density, 0.1 * torch.ones_like(density), stop_below=stop_below)
    torch.testing.assert_close(
        seen.weights.sum(-1) + seen.transmittance, torch.ones(rays, dtype=torch.float64)
    )
    assert (seen.weights >= 0).all()
    assert seen.color is None


@given(st.integers(1, 40), st.integers(0, 99))
def test_splitting_samples_keeps_the_result(samples, seed):
    density = torch.rand(3, samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    halves = density.repeat_interleave(2, -1)
    one, other = (
        composite(density, torch.ones_like(density)),
        composite(halves, 0.5 * torch.ones_like(halves)),
    )
    torch.testing.assert_close(one.weights, other.weights.unflatten(-1, (-1, 2)).sum(-1))


def test_results_do_not_depend_on_the_number_of_threads():
    results = []
    for threads in (1, 2):
        with num_threads(threads):
            results.append(composite(*scene(rays=2000)))
    assert_same_bits(*results)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda d: composite(d, d[:, :3]), ShapeError, "composite: `lengths` should be"),
        (lambda d: composite(d, d, stop_below=1.0), InputError, "`stop_below` should be a transmittance"),
        (lambda d: composite(d, d, offsets=torch.tensor([0, 4])), ShapeError, "samples should have one axis"),
        (lambda d: composite(d[0], d[0], offsets=torch.tensor([0, 3])), InputError, "the number of samples, 4"),
        (lambda d: composite(d[0], d[0], offsets=torch.tensor([0, 5, 4])), InputError, "`offsets` should rise"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_rejected(call, error, words):
    with pytest.raises(error) as caught:
        call(torch.rand(2, 4))
    assert words in str(caught.value)
