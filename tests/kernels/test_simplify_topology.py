"""Topological simplification: the same nodes as the reference, false tunnels and handles gone, all else unchanged."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from unrender.errors import InputError
from unrender.kernels.simplify_topology import simplify_topology


def noise(seed: int, smoothing: float) -> Tensor:
    values = np.random.default_rng(seed).normal(size=(10, 9, 11))
    return torch.from_numpy(gaussian_filter(values, smoothing))


def euler_characteristic(inside: Tensor) -> int:
    """Count vertices − edges + faces − cells of the union of closed cells around the nodes."""
    total = 0
    for axes in range(8):
        cells = torch.nn.functional.pad(inside, (1, 1, 1, 1, 1, 1))
        for axis in range(3):
            if axes >> axis & 1:
                cells = cells.narrow(axis, 0, cells.shape[axis] - 1) | cells.narrow(
                    axis, 1, cells.shape[axis] - 1
                )
        total += (-1) ** (3 - axes.bit_count()) * int(cells.sum())
    return total


def plate(weakest: float) -> Tensor:
    """A plate with a bar above it, on two posts, and a hole; one node of either is weak."""
    values = torch.full((7, 9, 13), -1.0)
    values[1, 1:8, 1:12] = 1.0
    values[1, 4, 2] = -weakest
    values[1:5, 4, [4, 10]] = 1.0
    values[4, 4, 4:11] = 1.0
    values[4, 4, 7] = weakest
    return values


@pytest.mark.parametrize("smoothing", [0.0, 0.8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_nodes_as_the_reference(monkeypatch, smoothing: float, dtype: torch.dtype) -> None:
    values = noise(0, smoothing).to(dtype)
    fast = simplify_topology(values, 0.3, 0.2)
    assert bool((fast != (values > 0)).any())
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    assert torch.equal(simplify_topology(values, 0.3, 0.2), fast)


def test_weak_tunnels_are_closed_and_weak_handles_cut() -> None:
    for weakest, tunnel_tolerance, handle_tolerance, number in (
        (0.1, 0.05, 0.05, 2),
        (0.1, 0.2, 0.05, 1),
        (0.1, 0.05, 0.2, 1),
        (0.1, 0.2, 0.2, 0),
    ):
        values = plate(weakest)
        inside = simplify_topology(values, tunnel_tolerance, handle_tolerance)
        assert 1 - euler_characteristic(inside) == number
        assert int((inside != (values > 0)).sum()) == 2 - number


def test_nothing_is_cut_off() -> None:
    values = torch.full((5, 5, 17), -1.0)
    values[2, 2, 1:16] = 1.0
    values[2, 2, 8] = 0.1  # the weak middle of a rod
    assert torch.equal(simplify_topology(values, 0.5, 0.5), values > 0)
    bottle = torch.full((9, 9, 9), -1.0)
    bottle[1:8, 1:8, 1:8] = 1.0
    bottle[3:6, 3:6, 3:6] = -1.0
    bottle[:3, 4, 4] = -0.1  # the neck
    assert torch.equal(simplify_topology(bottle, 0.5, 0.5), bottle > 0)


def test_small_parts_vanish() -> None:
    values = torch.full((5, 5, 5), -1.0)
    values[2, 2, 1:4] = 0.1
    assert not bool(simplify_topology(values, 0.5, 0.5).any())
    assert not bool(simplify_topology(-values, 0.5, 0.5)[1:4, 1:4, 1:4].logical_not().any())


def test_noise_gets_simple() -> None:
    values = noise(1, 0.5)
    before, after = (euler_characteristic(simplify_topology(values, t, t)) for t in (0.0, 0.3))
    assert before == euler_characteristic(values > 0) < 10 * min(after, -1)


@pytest.mark.parametrize("tolerances", [(-0.1, 0.0), (0.0, float("nan")), (float("inf"), 0.0)])
def test_impossible_tolerances_are_refused(tolerances: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="tolerances should be finite"):
        simplify_topology(noise(0, 0.0), *tolerances)
