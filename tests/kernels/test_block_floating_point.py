"""Sums of gradients in block floating point."""

import math

import pytest
import torch

from check_kernel import HAS_WARP, needs_cuda, needs_warp
from unrender.kernels.block_floating_point import BLOCK, block_exponents, block_sums, block_values, reference

BITS = 60


def gradients(count: int) -> list[torch.Tensor]:
    """Return gradients of many magnitudes, with blocks that only some of them have."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for shard in range(3):
        magnitudes = 10.0 ** torch.randint(-20, 20, (count,), generator=generator)
        gradient = torch.randn(count, generator=generator) * magnitudes
        gradient[BLOCK * shard : BLOCK * (shard + 2)] = 0
        found.append(gradient)
    return found


@pytest.mark.parametrize("count", [1, 15, 16, 17, 1000, 50_000])
def test_bits_are_those_of_the_reference(count, monkeypatch) -> None:
    given = gradients(count)
    results = []
    kinds = [(1, "fast"), (2, "fast"), (1, "reference"), *([(1, "warp")] if HAS_WARP else [])]
    for threads, kind in kinds:
        monkeypatch.setenv("UNRENDER_KERNELS", kind)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        exponents = block_exponents(given)
        chosen = exponents.nonzero()[:, 0]
        sums = block_sums(given, exponents, chosen, BITS)
        values = block_values(sums, exponents, chosen, BITS, count)
        torch.set_num_threads(before)
        results.append((exponents, sums, values))
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_sums_are_exact_to_half_a_unit_of_each_term() -> None:
    given = gradients(1000)
    exponents = block_exponents(given)
    chosen = exponents.nonzero()[:, 0]
    values = block_values(block_sums(given, exponents, chosen, BITS), exponents, chosen, BITS, 1000)
    exact = torch.stack(given).double().sum(0)
    unit = torch.exp2(exponents.double() - reference.BIAS - BITS).repeat_interleave(BLOCK)[:1000]
    error = (values.double() - exact).abs()
    assert bool((error <= unit * len(given) / 2 + exact.abs() * 2.0**-24).all())
    assert bool((values[(exponents == 0).repeat_interleave(BLOCK)[:1000]] == 0).all())


def test_order_and_grouping_do_not_matter() -> None:
    first, second, third = gradients(1000)
    exponents = block_exponents([first, second, third])
    chosen = exponents.nonzero()[:, 0]

    def total(*given: torch.Tensor) -> torch.Tensor:
        return block_sums(given, exponents, chosen, BITS)

    assert torch.equal(total(first, second, third), total(third) + total(second, first))
    parts = torch.maximum(block_exponents([second]), block_exponents([first, third]))
    assert torch.equal(parts, exponents)


@needs_cuda
def test_a_gpu_gives_the_bits_of_the_reference() -> None:
    given = gradients(50_000)
    exponents = block_exponents(given)
    chosen = exponents.nonzero()[:, 0]
    sums = block_sums(given, exponents, chosen, BITS)
    there = [each.cuda() for each in given]
    found = block_exponents(there)
    totals = block_sums(there, found, chosen.cuda(), BITS)
    assert torch.equal(found.cpu(), exponents)
    assert torch.equal(totals.cpu(), sums)
    values = block_values(totals, found, chosen.cuda(), BITS, 49_999)
    assert torch.equal(values.cpu(), block_values(sums, exponents, chosen, BITS, 49_999))


@pytest.mark.parametrize("kind", ["reference", "fast", pytest.param("warp", marks=needs_warp)])
@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_marked(bad, kind, monkeypatch) -> None:
    monkeypatch.setenv("UNRENDER_KERNELS", kind)
    given = torch.zeros(50)
    given[20], given[40], given[49] = 1.0, 3.4e38, bad
    assert block_exponents([torch.ones(50), given]).tolist() == [127, 127, 254, 255]


def test_inputs_of_any_strides_and_shapes() -> None:
    given = gradients(600)
    expected = block_exponents([each.view(20, 30).T.contiguous() for each in given])
    assert torch.equal(block_exponents([each.view(20, 30).T for each in given]), expected)
    chosen = expected.nonzero()[:, 0]
    one, other = (
        block_sums([prepare(each.view(20, 30).T) for each in given], expected, chosen, BITS)
        for prepare in (torch.clone, torch.Tensor.contiguous)
    )
    assert torch.equal(one, other)
    nothing = torch.empty(0, dtype=torch.int64)
    assert block_values(one[:0], expected, nothing, BITS, 600).tolist() == [0.0] * 600
