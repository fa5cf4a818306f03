import math

import pytest
import torch
from torch import Tensor

from check_kernel import assert_same_bits, check_kernel, num_threads, run
from unrender import HashLevels, InputError, ShapeError, hash_grid

LEVELS = HashLevels.geometric(3, 20, 4, 9)


def scene(features: int = 2, num: int = 300) -> tuple[Tensor, Tensor]:
    """Create a table and points, some outside the cube, none at a cell boundary, where gradients are discontinuous."""
    generator = torch.Generator().manual_seed(0)
    points = 1.2 * torch.rand(num, 3, generator=generator, dtype=torch.float64) - 0.1
    for side in LEVELS.resolutions:
        part = (points * side).frac().abs()
        points = torch.where((part < 0.001) | (part > 0.999), points + 0.003, points)
    return points.float(), torch.randn(LEVELS.num_entries, features, generator=generator)


def encode(points: Tensor, table: Tensor) -> Tensor:
    return hash_grid(points, table, LEVELS)


@pytest.mark.parametrize("features", [1, 2, 3, 4, 8])
def test_matches_the_reference(features):
    check_kernel(encode, scene(features))


@pytest.mark.parametrize("num", [0, 1, 513])
def test_few_points(num):
    check_kernel(encode, scene(num=num))


def test_results_do_not_depend_on_the_number_of_threads():
    levels = HashLevels.geometric(4, 200, 6, 14)
    generator = torch.Generator().manual_seed(1)
    inputs = [
        torch.rand(30_000, 3, generator=generator),
        torch.randn(levels.num_entries, 2, generator=generator),
    ]
    results = []
    for threads in (1, 2):
        with num_threads(threads):
            results.append(run(lambda points, table: hash_grid(points, table, levels), inputs))
    assert_same_bits(*results)


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_features_at_corners_are_the_entries(monkeypatch, kernels):
    monkeypatch.setenv("UNRENDER_KERNELS", kernels)
    levels = HashLevels((4,), 7)
    assert levels.hashed == (False,)
    table = torch.arange(levels.num_entries, dtype=torch.float32)[:, None]
    z, y, x = torch.meshgrid(*[torch.arange(5)] * 3, indexing="ij")
    corners = torch.stack([x, y, z], -1).view(-1, 3) / 4
    assert torch.equal(hash_grid(corners, table, levels)[:, 0], torch.arange(125.0))


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_points_outside_have_no_features_and_gradients(monkeypatch, kernels):
    monkeypatch.setenv("UNRENDER_KERNELS", kernels)
    outside = [[-0.001, 0.5, 0.5], [0.5, 1.001, 0.5], [0.5, 0.5, math.nan], [math.inf, 0, 0], [0, 1e30, 0]]
    table = torch.ones(LEVELS.num_entries, 2)
    found, grad_points, grad_table = run(encode, [torch.tensor(outside), table])
    assert not found.any()
    assert not grad_points.any()
    assert not grad_table.any()
    border = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 1, 0.5]])
    torch.testing.assert_close(encode(border, table), torch.ones(3, 8))


def test_layout_of_features_and_requested_gradients():
    points, table = scene()
    found = encode(points, table.requires_grad_())
    assert found.mT.is_contiguous()
    found.sum().backward()
    assert table.grad is not None
    assert points.grad is None


def test_levels_grow_geometrically():
    levels = HashLevels.geometric(16, 2048, 16, 19)
    assert levels.resolutions[:3] == (16, 22, 30)
    assert levels.resolutions[-1] == 2048
    assert levels.hashed == (False,) * 5 + (True,) * 11
    assert levels.offsets[1] == 17**3 + 7  # a multiple of 8
    assert levels.num_entries == levels.offsets[5] + 11 * 2**19
    assert HashLevels.geometric(5, 9, 1, 10).resolutions == (5,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HashLevels.geometric(8, 4, 3, 10), "`coarsest` ≤ `finest`"),
        (lambda: HashLevels.geometric(8, 9, 0, 10), "`num_levels` ≥ 1"),
        (lambda: HashLevels((), 10), "HashLevels: `resolutions` should be one or more"),
        (lambda: HashLevels((0,), 10), "HashLevels: `resolutions` should be one or more"),
        (lambda: HashLevels((4,), 40), "HashLevels: `log2_hashmap_size` should be 3 to 28, got 40"),
    ],
)
def test_invalid_levels_are_rejected(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_invalid_tables_are_rejected():
    points, table = scene()
    with pytest.raises(ShapeError, match="hash_grid: `points` should have the dtype of `table`"):
        encode(points, table.double())
    with pytest.raises(ShapeError, match=f"levels.num_entries = {LEVELS.num_entries} rows of 1 to 8"):
        encode(points, table[1:])
    with pytest.raises(ShapeError, match="rows of 1 to 8 features"):
        encode(points, table.repeat(1, 5))
