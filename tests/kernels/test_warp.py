import math
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from check_kernel import HAS_WARP

if not HAS_WARP:
    pytest.skip("NVIDIA Warp is not installed: pip install unrender[gpu]", allow_module_level=True)

import warp as wp

from unrender.kernels import _warp
from unrender.kernels._warp import (
    count_log2,
    from_units,
    in_units,
    launch,
    per_precision,
    record_term,
    unit_exponent,
)


@per_precision("test_warp")
def kernels(types):
    scalar, vec3 = types.scalar, types.vec3

    @types.kernel
    def note(terms: wp.array(dtype=scalar), greatest: wp.array(dtype=wp.int64)):
        record_term(wp.float64(terms[wp.tid()]), greatest)

    @types.kernel
    def add(
        terms: wp.array(dtype=scalar),
        greatest: wp.array(dtype=wp.int64),
        count: int,
        totals: wp.array(dtype=wp.int64),
    ):
        term = wp.float64(terms[wp.tid()])
        wp.atomic_add(totals, 0, in_units(term, unit_exponent(greatest[0], count)))

    @types.kernel
    def read(
        greatest: wp.array(dtype=wp.int64),
        count: int,
        totals: wp.array(dtype=wp.int64),
        sums: wp.array(dtype=wp.float64),
    ):
        i = wp.tid()
        sums[i] = from_units(totals[i], greatest[0], unit_exponent(greatest[0], count))

    @types.kernel
    def shape_of(points: wp.array2d(dtype=vec3), scale: scalar, out: wp.array(dtype=wp.int32)):
        out[0] = points.shape[0]
        out[1] = points.shape[1]
        out[2] = int(points[1, 2][1] * scale)

    @types.kernel
    def length_of(points: wp.array(dtype=vec3), out: wp.array(dtype=wp.int32)):
        out[0] = points.shape[0]

    return SimpleNamespace(note=note, add=add, read=read, shape_of=shape_of, length_of=length_of)


def total(terms):
    instance, count = kernels(terms.dtype), count_log2(len(terms))
    greatest, totals = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    sums = torch.zeros(1, dtype=torch.float64)
    launch(instance.note, len(terms), terms, greatest)
    launch(instance.add, len(terms), terms, greatest, count, totals)
    launch(instance.read, 1, greatest, count, totals, sums)
    return sums.item()


@pytest.mark.parametrize("scale", [1e-270, 1e-37, 1e-3, 1.0, 3e38, 1e300])
@pytest.mark.parametrize("count", [1, 2, 1000])
def test_sums_in_fixed_point_are_right_at_any_scale(scale, count):
    dtype = torch.float32 if 1e-38 < scale < 1e38 else torch.float64
    terms = (torch.rand(count, generator=torch.Generator().manual_seed(0)).double() * 2 - 1) * scale
    terms = terms.to(dtype)
    exact = math.fsum(terms.tolist())
    unit = 2.0 ** (count_log2(count) - 61) * terms.abs().max().item()
    assert abs(total(terms) - exact) <= count * unit / 2 + abs(exact) * 2**-53


def test_sums_of_the_largest_terms_do_not_overflow():
    terms = torch.full((1024,), 1.0 - 2**-24)
    assert total(terms) == 1024 * (1.0 - 2**-24)
    assert total(-terms) == -1024 * (1.0 - 2**-24)


def test_sums_do_not_depend_on_order():
    values = [random.Random(0).gauss(0, 1) * 10.0 ** random.Random(i).randint(-6, 6) for i in range(500)]
    shuffled = random.Random(1).sample(values, len(values))
    assert total(torch.tensor(values)) == total(torch.tensor(shuffled))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_terms_that_are_not_numbers_surface(wrong):
    assert math.isnan(total(torch.tensor([1.0, wrong, 2.0])))


def test_nothing_adds_up_to_zero():
    assert total(torch.zeros(5)) == 0.0
    launch(kernels(torch.float32).note, 0, torch.zeros(0), torch.zeros(1, dtype=torch.int64))


def test_leading_axes_are_collapsed_to_those_of_the_array():
    points, out = torch.arange(72.0).view(2, 3, 4, 3), torch.zeros(3, dtype=torch.int32)
    launch(kernels(torch.float32).shape_of, 1, points, 2.0, out)
    assert out.tolist() == [6, 4, 2 * int(points[0, 1, 2, 1])]


def test_none_is_an_array_without_elements_after_a_tensor_too():
    out = torch.zeros(3, dtype=torch.int32)
    for points, length in ((None, 0), (torch.zeros(5, 3), 5), (None, 0)):
        launch(kernels(torch.float32).length_of, 1, points, out)
        assert out[0] == length


@pytest.mark.parametrize(
    "points", [torch.zeros(2, 4, 3, dtype=torch.float64), torch.zeros(4, 2, 3).transpose(0, 1)]
)
def test_tensors_of_another_kind_are_refused(points):
    with pytest.raises(TypeError, match=r"`points` should be contiguous torch\.float32 on cpu"):
        launch(kernels(torch.float32).shape_of, 1, points, 2.0, torch.zeros(3, dtype=torch.int32))


@pytest.mark.parametrize("is_refused", [True, False])
def test_an_unwritable_cache_is_replaced(is_refused, monkeypatch, caplog):
    calls = []

    def initialize():
        calls.append(wp.config.kernel_cache_dir)
        if is_refused and len(calls) == 1:
            raise OSError("read-only file system")

    monkeypatch.setattr(wp, "init", initialize)
    monkeypatch.setattr(wp.config, "kernel_cache_dir", "/absent/warp")
    with caplog.at_level("WARNING", "unrender"):
        _warp.initialize()
    assert "no writable folder for compiled GPU kernels" in caplog.text
    assert len(calls) == 2
    assert Path(calls[1]).is_dir()
