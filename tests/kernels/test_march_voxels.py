"""March through sparse voxels: the fast version against the definition, the definition against formulas."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from check_kernel import assert_same_bits, implementations, needs_warp, num_threads, run
from unrender.errors import InputError
from unrender.geometry.rays import Rays, clip_to_box
from unrender.kernels.march_voxels import VoxelMarch, march_voxels
from unrender.kernels.march_voxels.rays import GridRays, Strides
from unrender.kernels.march_voxels.table import VoxelTable

SIZE = 12


def some_voxels(share: float = 0.3) -> VoxelTable:
    mask = torch.rand(SIZE, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) < share
    mask[:, 4:8] = False  # a layer of empty bricks
    return VoxelTable.from_mask(mask)


def some_rays(count: int, contracted: bool, dtype: torch.dtype) -> GridRays:
    generator = torch.Generator().manual_seed(2)
    origins, directions = torch.randn(2, count, 3, generator=generator).to(dtype)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    jitter = torch.rand(count, generator=generator).to(dtype)
    basis = torch.randn(count, 4, generator=generator).to(dtype)
    if contracted:
        near = torch.full((count,), 0.05, dtype=dtype)
        return GridRays(origins * 0.7, directions, near, near + 30, jitter, basis)
    origins = origins * 3 + SIZE / 2
    stretch = clip_to_box(
        Rays(origins, directions), torch.zeros(3).to(dtype), torch.full((3,), SIZE).to(dtype)
    )
    return GridRays(origins, directions, *stretch, jitter, basis)


@pytest.fixture(params=[False, True], ids=["box", "contracted"])
def contracted(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def march(contracted: bool, dtype: torch.dtype = torch.float32, **limits: float):
    """Return a function of log density and harmonics, and values for them."""
    table, count = some_voxels(), 60
    rays = some_rays(count, contracted, dtype)
    generator = torch.Generator().manual_seed(3)
    strides = Strides(0.2 if contracted else 0.7, contracted=contracted, **limits)
    log_density = torch.randn(table.num_corners, generator=generator).to(dtype) - 1
    harmonics = 0.4 * torch.randn(table.num_corners, 12, generator=generator).to(dtype)

    def op(log_density: Tensor, harmonics: Tensor) -> tuple[Tensor, ...]:
        return march_voxels(rays, log_density, harmonics, table, strides)[:3]

    return op, (log_density, harmonics)


@pytest.mark.parametrize("choice", ["fast", pytest.param("warp", marks=needs_warp)])
@pytest.mark.parametrize("limits", [{}, {"skip": 1e-2, "stop": 0.1}], ids=["all", "skip and stop"])
def test_the_fast_version_agrees_with_the_definition(contracted, limits, choice):
    op, inputs = march(contracted, torch.float64, **limits)
    with implementations(choice):
        fast, again = run(op, inputs), run(op, inputs)
    with implementations("reference"):
        torch.testing.assert_close(fast, run(op, inputs))
    assert_same_bits(fast, again)


@needs_warp
def test_warp_raises_weights_of_voxels_and_shows_what_is_not_finite():
    op, (log_density, harmonics) = march(False)
    rays, table, strides = some_rays(60, False, torch.float32), some_voxels(), Strides(0.7)
    raised = []
    for choice in ("warp", "reference"):
        with implementations(choice):
            marched = march_voxels(rays, log_density, harmonics, table, strides, keep_voxel_weights=True)
        raised.append(marched.voxel_weights)
    torch.testing.assert_close(*raised)
    with implementations("warp"):
        assert op(log_density * torch.nan, harmonics)[0].isnan().any()


def test_bricks_that_are_too_thin_to_count_are_passed_over(contracted, monkeypatch):
    op, (log_density, harmonics) = march(contracted, torch.float64, skip=1e-2)
    log_density[some_voxels().corner_positions[:, 0] < 5] = -20
    fast = run(op, (log_density, harmonics))
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    torch.testing.assert_close(fast, run(op, (log_density, harmonics)))


def test_gradients_agree_with_finite_differences(contracted):
    op, inputs = march(contracted, torch.float64)
    assert gradcheck(op, [value.requires_grad_() for value in inputs], fast_mode=True)


def test_results_have_the_same_bits_for_any_number_of_threads(contracted):
    op, inputs = march(contracted)
    results = []
    for threads in (1, 2):
        with num_threads(threads):
            results.append(run(op, inputs))
    assert_same_bits(*results)


def test_single_precision_is_close_to_double(contracted):
    single, double = (run(*march(contracted, dtype)) for dtype in (torch.float32, torch.float64))
    for one, other in zip(single[:3], double[:3], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def one_block(log_density: float) -> dict[str, object]:
    table = VoxelTable.from_mask(torch.ones(4, 4, 4, dtype=torch.bool))
    return {
        "log_density": torch.full((table.num_corners,), log_density),
        "harmonics": torch.zeros(table.num_corners, 3),
        "table": table,
    }


def look(count: int = 1, *, step: float, near: float = 1.0, **arguments) -> VoxelMarch:
    """Look along x through the middle of a block 4 wide."""
    rays = GridRays(
        origins=torch.tensor([[-1.0, 2.0, 2.0]]).expand(count, 3),
        directions=torch.tensor([[1.0, 0.0, 0.0]]).expand(count, 3),
        t_near=torch.full((count,), near),
        t_far=torch.full((count,), 5.0),
        jitter=torch.full((count,), 0.5),
        basis=torch.ones(count, 1),
    )
    return march_voxels(rays, strides=Strides(step), **arguments)


@pytest.mark.parametrize("step", [0.125, 0.5, 1.0, 2.0])
def test_the_opacity_of_a_block_is_exact_whatever_the_step(step):
    seen = look(**one_block(-1.0), step=step)
    expected = 1 - torch.tensor(-1.0).exp().mul(-4).exp()
    torch.testing.assert_close(seen.opacity[0], expected)
    torch.testing.assert_close(seen.color[0], 0.5 * expected.expand(3))


def test_an_opaque_block_is_seen_at_its_face():
    seen = look(**one_block(10.0), step=0.01)
    assert float(seen.opacity) == pytest.approx(1)
    assert float(seen.distance) == pytest.approx(1, abs=0.01)


def test_gradients_of_opaque_and_of_empty_space_are_finite():
    for log_density in (-80.0, 80.0):
        block = one_block(log_density)
        values = [block["log_density"].requires_grad_(), block["harmonics"].requires_grad_()]
        seen = look(**block, step=0.5)
        gradients = torch.autograd.grad(sum(value.sum() for value in seen[:3]), values)
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_rays_beside_the_grid_see_nothing():
    seen = look(**one_block(3.0), step=0.5, near=7.0)
    assert all(float(value.abs().sum()) == 0 for value in seen[:3])


def test_no_rays_give_no_colors():
    assert look(0, **one_block(3.0), step=0.5).color.shape == (0, 3)


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_voxels_remember_their_largest_weight(kernels, monkeypatch):
    monkeypatch.setenv("UNRENDER_KERNELS", kernels)
    block = one_block(-1.0)
    weight = look(**block, step=1.0, keep_voxel_weights=True).voxel_weights
    assert float(weight.max()) == pytest.approx(1 - float(torch.tensor(-1.0).exp().neg().exp()))
    assert int((weight > 0).sum()) == 4


def test_a_table_numbers_each_voxel_and_corner_once():
    table = some_voxels()
    numbered = table.voxels[table.voxels >= 0]
    assert torch.equal(numbered.sort().values, torch.arange(table.num_voxels, dtype=torch.int32))
    steps = torch.tensor([[q >> 2, q >> 1 & 1, q & 1] for q in range(8)])
    places = table.corner_positions[table.corners.long()]
    assert torch.equal(places.long(), table.voxel_positions[:, None].long() + steps)


def test_neighbours_are_one_step_away():
    table = some_voxels()
    neighbors = table.neighbors()
    for side, step in enumerate([(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)]):
        has = neighbors[:, side] >= 0
        assert bool(has.any())
        moved = table.corner_positions[neighbors[has, side].long()] - table.corner_positions[has]
        assert bool((moved == torch.tensor(step)).all())


@pytest.mark.parametrize("shape", [(4, 4, 6), (4, 4, 4)])
def test_a_table_needs_whole_bricks_and_a_voxel(shape):
    with pytest.raises(InputError, match="multiples of 4, with at least one active voxel"):
        VoxelTable.from_mask(torch.zeros(shape, dtype=torch.bool))
