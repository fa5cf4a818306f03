import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ball_pixels import ball_pixels
from check_kernel import needs_warp
from unrender import HashLevels, composite, hash_grid, tiny_mlp
from unrender.data.depth_supervision import DeviceDepths
from unrender.fields.harmonics import spherical_harmonics
from unrender.kernels.traverse import CellGrid, traverse
from unrender.losses.depth import depth_loss
from unrender.losses.distortion import distortion_loss

graph_step = pytest.importorskip("unrender.training.graph_step")
pytestmark = needs_warp
LEVELS = HashLevels.geometric(4, 32, 4, 10)
SIDE = 16


def parameters() -> "graph_step.HashParameters":
    generator = torch.Generator().manual_seed(1)

    def layers(*sizes: int) -> list[tuple[Tensor, Tensor]]:
        return [
            (
                torch.randn(o, i, generator=generator) * math.sqrt(2 / i),
                0.1 * torch.randn(o, generator=generator),
            )
            for i, o in pairwise(sizes)
        ]

    table = torch.randn(LEVELS.num_entries, 2, generator=generator)
    return graph_step.HashParameters(
        table, LEVELS, layers(8, 64, 16), layers(32, 64, 64, 3), torch.tensor([0.5, 0.4, 0.3])
    )


def make(
    occupied: Tensor | None = None, depths: DeviceDepths | None = None, **changes: object
) -> "graph_step.GraphStep":
    values = {
        "center": (0.0, 0.0, 0.0), "half_extent": 1.2, "contracted": False, "near": 0.0, "far": 1e9,
        "density_unit": 0.1, "samples": 4096, "max_rays": 512, "initial_rays": 150, "precision": torch.float32,
    }  # fmt: skip
    settings = graph_step.StepSettings(**(values | changes))
    if occupied is None:
        axis = torch.arange(SIDE) - SIDE / 2 + 0.5
        occupied = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0) < SIDE / 2
    return graph_step.GraphStep(parameters(), ball_pixels(), occupied, settings, depths)


@pytest.mark.parametrize("contracted", [False, True])
def test_candidates_equal_traverse(contracted):
    step = make(
        contracted=contracted, near=0.1, far=1200.0 if contracted else 1e9, samples=1 << 14, initial_rays=150
    )
    count = step.counters[graph_step.NUM_RAYS].item()
    step.run(1, 0.0, 0.11)
    near, far = torch.full((count,), 0.1), torch.full((count,), 1200.0)
    if not contracted:
        far = torch.full((count,), 8.0)
    origins, directions = step.origins[:count] / 1.2, step.directions[:count] / 1.2
    occupied = step.occupied.bool()
    if contracted:
        grid = CellGrid.from_mask(occupied, torch.zeros(3), torch.ones(3), contracted=True)
        steps = torch.full_like(near, 0.11)
        expected = traverse(grid, origins, directions, near, far, steps, step.jitter[:count])
        assert torch.equal(step.candidates.offsets[: count + 1].long(), expected.offsets)
        total = int(expected.offsets[-1])
        torch.testing.assert_close(
            step.candidates.distances[:total], expected.distances, rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(step.candidates.lengths[:total], expected.lengths, rtol=1e-3, atol=1e-4)
    total = step.status().num_candidates
    assert total > 200
    ray = torch.repeat_interleave(step.candidates.offsets[: count + 1].diff().long())
    assert torch.equal(step.candidates.rays[:total].long(), ray)
    points = origins[ray] + step.candidates.distances[:total, None] * directions[ray]
    r = points.abs().amax(-1, keepdim=True).clamp(min=1)
    positions = (points * (2 - 1 / r) / r / 2 if contracted else points) / 2 + 0.5
    torch.testing.assert_close(step.candidates.positions[:total], positions, rtol=1e-4, atol=1e-5)
    assert occupied[(positions * SIDE).long().clamp(0, SIDE - 1).unbind(-1)].float().mean() > 0.999


def some_depths() -> DeviceDepths:
    """Rays from the cameras towards the middle, whose known ends are anywhere near the ball."""
    generator = torch.Generator().manual_seed(4)
    origins = ball_pixels().world_from_camera[:, :3, 3]
    frame = torch.randint(len(origins), (40,), generator=generator, dtype=torch.int32)
    towards = 0.5 * torch.randn(40, 3, generator=generator) - origins[frame]
    distances = origins[frame].norm(dim=-1) - torch.rand(40, generator=generator)
    return DeviceDepths(frame, torch.nn.functional.normalize(towards, dim=-1), distances)


@pytest.mark.parametrize("distortion", [0.0, 0.1])
@pytest.mark.parametrize("random_background", [False, True])
@pytest.mark.parametrize("extras", [False, True])
def test_loss_and_gradients_are_those_of_autograd(distortion, random_background, extras):
    """With extras, images have exposures, and some rays a known depth."""
    step = make(
        depths=some_depths() if extras else None, exposure_rate=0.5 if extras else 0.0, depth_weight=0.3,
        distortion=distortion, random_backgrounds=float(random_background), min_weight=0.0,
    )  # fmt: skip
    if extras:
        step.exposures.logs.copy_(0.3 * torch.randn(step.exposures.logs.shape))
        step.exposures.refresh()
    count = step.counters[graph_step.NUM_RAYS].item()
    num_depths = int(count * 0.2) if extras else 0
    colored = count - num_depths
    step.scalars[graph_step.STEP] = 0.11
    step._sample_rays()
    step.active.copy_(step.flat)
    step._select_visible()
    step._render()
    step._backward()
    total, p = int(step.counters[graph_step.NUM_SAMPLES]), step.parameters
    logs = step.exposures.logs
    leaves = [
        p.table,
        *(t for layer in (*p.density_layers, *p.color_layers) for t in layer),
        p.background,
        logs,
    ]
    for leaf in leaves:
        leaf.requires_grad_()
    offsets, ray = step.samples.offsets[: count + 1].long(), step.samples.rays[:total].long()
    geometry = tiny_mlp(
        hash_grid(step.samples.positions[:total], p.table, LEVELS),
        *map(list, zip(*p.density_layers, strict=True)),
    )
    inputs = torch.cat([geometry, spherical_harmonics(step.directions[ray], 3)], 1)
    color = tiny_mlp(inputs, *map(list, zip(*p.color_layers, strict=True)), output="sigmoid")
    density, lengths = geometry[:, 0].exp() / 0.1, step.samples.lengths[:total]
    seen = composite(density, lengths, color, offsets=offsets, stop_below=1e-4)
    background = step.background[:count] if random_background else p.background.expand(count, 3)
    assert seen.color is not None
    rendered = (seen.color + seen.transmittance[:, None] * background)[:colored]
    if extras:
        rendered = rendered * (logs - logs.mean(0)).exp()[step.frame[:colored].long()]
    error = (rendered - step.target[:colored].detach()).square().mean()
    torch.testing.assert_close(step.total_loss[0] / colored, error.detach())
    distances = step.samples.distances[:total]
    scaled = lengths * 1.2 / (distances + 1.2).square()
    spread = distortion_loss(seen.weights, distances / (distances + 1.2), scaled, offsets)
    loss = error + distortion * spread
    if extras:
        first, known = int(offsets[colored]), step.known[colored:count]
        assert bool((known > 0).all())
        loss = loss + 0.3 * depth_loss(
            seen.weights[first:], distances[first:], offsets[colored:] - first, known
        )
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    scale = step.scalars[graph_step.LOSS_SCALE]
    of_table = (step.sums.double() / step._units / scale).view(p.table.shape).float()
    torch.testing.assert_close(of_table, gradients[0], rtol=1e-3, atol=1e-7)
    found = [g / scale for g in (*step.density.gradients, *step.color.gradients)]
    for matrix, of_weight, of_bias in zip(found, gradients[1:-2:2], gradients[2:-2:2], strict=True):
        rows, columns = of_weight.shape
        torch.testing.assert_close(matrix[:rows, :columns], of_weight, rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(matrix[:rows, columns], of_bias, rtol=1e-3, atol=1e-7)
    if not random_background:
        n = step.num_weights
        torch.testing.assert_close(step.gradient[n : n + 3] / scale, gradients[-2], rtol=1e-3, atol=1e-7)
    if extras:
        of_logs = step.exposures.take_gradient(step.scalars) / scale
        torch.testing.assert_close(of_logs, gradients[-1], rtol=1e-3, atol=1e-7)


def test_visible_candidates_are_kept():
    step = make(min_weight=1e-2)
    step.scalars[graph_step.STEP] = 0.11
    step.active.copy_(step.flat)
    step._sample_rays()
    step._select_visible()
    given, kept, count = step.candidates, step.samples, step.counters[graph_step.NUM_RAYS].item()
    total, left = (int(each.offsets[count]) for each in (given, kept))
    density = step.candidate_values.outputs[0, :total].exp() / 0.1
    offsets = given.offsets[: count + 1].long()
    weights = composite(density, given.lengths[:total], offsets=offsets, stop_below=1e-4).weights
    expected = (weights >= 1e-2).nonzero()[:, 0]
    assert 100 < left < 0.8 * total
    assert torch.equal(step.sources[:left].long(), expected)
    for name in ("positions", "distances", "lengths", "rays"):
        assert torch.equal(getattr(kept, name)[:left], getattr(given, name)[:total][expected])
    features = step.candidate_values.inputs[0][:8, :total]
    assert torch.equal(step.density_values.inputs[0][:8, :left], features[:, expected])


def test_entries_without_gradient_keep_their_values_and_moments():
    for sparse in (True, False):
        step = make(sparse=sparse)
        step.run(1, 1e-2, 0.11)
        before = step.moments[0].clone()
        untouched = step.moments[0] == 0
        assert 0 < int(untouched.sum()) < len(untouched)
        step.run(1, 1e-2, 5.0)  # few samples
        assert bool((step.moments[0] == before)[~untouched].any()) == sparse


def test_training_lowers_the_loss_and_repeats_its_bits():
    found = []
    for _ in range(2):
        step = make(precision=torch.float16, initial_rays=100, samples=2048)
        step.run(1, 2e-2, 0.2)
        first = step.status()
        step.run(60, 2e-2, 0.2)
        status = step.status()
        assert status.updates == 61
        assert status.skipped == 0
        assert status.mean_loss < 0.5 * first.loss
        assert 0.5 * 2048 < status.num_samples <= 2048
        found.append([step.parameters.table.clone(), *(t.clone() for t in step.parameters.density_layers[0])])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert bool((step.max_weight > 0.05).any())


def test_rays_beyond_the_capacity_are_counted_and_become_fewer():
    step = make(samples=1024, initial_rays=400)
    step.run(1, 1e-3, 0.1)
    status = step.status()
    assert status.num_samples <= 1024 < status.requested_samples
    assert status.dropped_rays > 0
    step.run(8, 1e-3, 0.1)
    assert step.status().requested_samples < 1300


def test_numbers_that_are_not_finite_change_nothing_and_lower_the_scale():
    step = make(precision=torch.float16)
    step.run(3, 1e-2, 0.2)
    good = [tensor.clone() for tensor in step.state()[:-2]]
    step.scalars[graph_step.LOSS_SCALE] = 3e38  # gradients overflow
    step.run(1, 1e-2, 0.2)
    status = step.status()
    assert status.skipped == status.skipped_in_a_row == 1
    assert status.updates == 3
    assert all(torch.equal(a, b) for a, b in zip(good, step.state(), strict=False))
    assert math.isfinite(status.mean_loss)
    step.scalars[graph_step.LOSS_SCALE] = 65536.0
    step.run(1, 1e-2, 0.2)
    assert step.status().skipped_in_a_row == 0
    step.flat[0] = torch.nan
    step.run(1, 1e-2, 0.2)
    assert step.status().skipped == 2
    step.restore_snapshot()
    step.run(2, 1e-2, 0.2)
    assert step.status().skipped_in_a_row == 0
    assert step.status().updates == 2


def test_huge_weights_do_not_overflow():
    step = make(precision=torch.float16)
    step.density.weights[0].mul_(3000.0)
    step.run(2, 1e-3, 0.2)
    assert step.status().skipped == 0
    assert all(bool(tensor.isfinite().all()) for tensor in step.state()[:-2])
