import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from check_kernel import needs_warp
from unrender import HashLevels, composite, hash_grid, tiny_mlp
from unrender.data.device_pixels import DevicePixels
from unrender.fields.harmonics import spherical_harmonics
from unrender.kernels.traverse import CellGrid, traverse
from unrender.losses.distortion import distortion_loss

graph_step = pytest.importorskip("unrender.training.graph_step")
pytestmark = needs_warp
LEVELS = HashLevels.geometric(4, 32, 4, 10)
SIDE = 16


def ball_pixels(frames: int = 6, size: int = 20) -> DevicePixels:
    """Images of a ball around 0, in colors of its normals, from all sides at distance 4."""
    generator = torch.Generator().manual_seed(0)
    forward = torch.nn.functional.normalize(torch.randn(frames, 3, generator=generator), dim=-1)
    right = torch.nn.functional.normalize(
        torch.linalg.cross(forward, torch.tensor([[0.0, 0, 1]]).expand(frames, 3)), dim=-1
    )
    pose = torch.stack([right, torch.linalg.cross(forward, right), forward, -4 * forward], -1)
    y, x = torch.meshgrid(*[(torch.arange(size) + 0.5) / size - 0.5] * 2, indexing="ij")
    local = torch.nn.functional.normalize(
        torch.stack([0.8 * x, 0.8 * y, torch.ones_like(x)], -1).view(-1, 3), dim=-1
    )
    world = local @ pose[:, :, :3].mT
    origin = pose[:, None, :, 3].expand_as(world)
    along = -(origin * world).sum(-1)
    apart = (origin + along[..., None] * world).norm(dim=-1)
    hit = origin + (along - (1 - apart.square()).clamp(min=0).sqrt())[..., None] * world
    colors = torch.cat([hit / 2 + 0.5, (apart < 1).float()[..., None]], -1).clamp(0, 1)
    packed = (255 * colors).round().to(torch.uint8).contiguous().view(torch.int32).flatten()
    return DevicePixels(
        packed,
        torch.ones(0, dtype=torch.bool),
        torch.arange(frames + 1) * size**2,
        torch.zeros(frames, dtype=torch.int64),
        local,
        pose,
        True,
    )


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


def make(occupied: Tensor | None = None, **changes: object) -> "graph_step.GraphStep":
    values = {
        "center": (0.0, 0.0, 0.0), "half_side": 1.2, "contracted": False, "near": 0.0, "far": 1e9, "unit": 0.1,
        "samples": 4096, "most_rays": 512, "first_rays": 150, "precision": torch.float32,
    }  # fmt: skip
    settings = graph_step.StepSettings(**(values | changes))
    if occupied is None:
        axis = torch.arange(SIDE) - SIDE / 2 + 0.5
        occupied = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0) < SIDE / 2
    return graph_step.GraphStep(parameters(), ball_pixels(), occupied, settings)


@pytest.mark.parametrize("contracted", [False, True])
def test_samples_are_those_of_the_walk(contracted):
    step = make(contracted=contracted, near=0.1, far=1200.0 if contracted else 1e9, samples=1 << 14)
    count = step.counts[1].item()
    step.run(1, 0.0, 0.11)
    near, far = torch.full((count,), 0.1), torch.full((count,), 1200.0)
    if not contracted:
        far = torch.full((count,), 8.0)
    origins, directions = step.origins[:count] / 1.2, step.directions[:count] / 1.2
    occupied = step.occupied.bool()
    if contracted:
        grid = CellGrid.from_mask(occupied, torch.zeros(3), torch.ones(3), contracted=True)
        steps = torch.full_like(near, 0.11)
        walk = traverse(grid, origins, directions, near, far, steps, step.jitter[:count])
        assert torch.equal(step.offsets[: count + 1].long(), walk.offsets)
        total = int(walk.offsets[-1])
        torch.testing.assert_close(step.distances[:total], walk.distances, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(step.lengths[:total], walk.lengths, rtol=1e-3, atol=1e-4)
    total = step.status().num_samples
    assert total > 200
    ray = torch.repeat_interleave(step.offsets[: count + 1].diff().long())
    assert torch.equal(step.ray[:total].long(), ray)
    points = origins[ray] + step.distances[:total, None] * directions[ray]
    r = points.abs().amax(-1, keepdim=True).clamp(min=1)
    places = (points * (2 - 1 / r) / r / 2 if contracted else points) / 2 + 0.5
    torch.testing.assert_close(step.places[:total], places, rtol=1e-4, atol=1e-5)
    assert occupied[(places * SIDE).long().clamp(0, SIDE - 1).unbind(-1)].float().mean() > 0.999


@pytest.mark.parametrize("distortion", [0.0, 0.1])
@pytest.mark.parametrize("random_background", [False, True])
def test_loss_and_gradients_are_those_of_autograd(distortion, random_background):
    step = make(distortion=distortion, random_background=random_background, learns_background=True)
    count = step.counts[1].item()
    step.numbers[1] = 0.11
    step._place_samples()
    step.active.copy_(step.flat)
    step._evaluate()
    step._go_back()
    total, p = int(step.counts[2]), step.parameters
    leaves = [p.table, *(t for layer in (*p.density_layers, *p.color_layers) for t in layer), p.background]
    for leaf in leaves:
        leaf.requires_grad_()
    offsets, ray = step.offsets[: count + 1].long(), step.ray[:total].long()
    geometry = tiny_mlp(
        hash_grid(step.places[:total], p.table, LEVELS), *map(list, zip(*p.density_layers, strict=True))
    )
    shining = torch.cat([geometry, spherical_harmonics(step.directions[ray], 3)], 1)
    color = tiny_mlp(shining, *map(list, zip(*p.color_layers, strict=True)), output="sigmoid")
    density, lengths = geometry[:, 0].exp() / 0.1, step.lengths[:total]
    seen = composite(density, lengths, color, offsets=offsets, stop_below=1e-4)
    behind = step.behind[:count] if random_background else p.background.expand(count, 3)
    assert seen.color is not None
    error = (seen.color + seen.transmittance[:, None] * behind - step.target[:count].detach()).square().mean()
    torch.testing.assert_close(step.total_loss[0] / count, error.detach())
    distances = step.distances[:total]
    scaled = lengths * 1.2 / (distances + 1.2).square()
    spread = distortion_loss(seen.weights, distances / (distances + 1.2), scaled, offsets)
    gradients = torch.autograd.grad(error + distortion * spread, leaves, allow_unused=True)
    scale = step.numbers[2]
    of_table = (step.sums.double() / step._units / scale).view(p.table.shape).float()
    torch.testing.assert_close(of_table, gradients[0], rtol=1e-3, atol=1e-7)
    found = [g / scale for g in (*step.density.gradients, *step.color.gradients)]
    for matrix, of_weight, of_bias in zip(found, gradients[1:-1:2], gradients[2:-1:2], strict=True):
        rows, columns = of_weight.shape
        torch.testing.assert_close(matrix[:rows, :columns], of_weight, rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(matrix[:rows, columns], of_bias, rtol=1e-3, atol=1e-7)
    if not random_background:
        n = step.num_weights
        torch.testing.assert_close(step.gradient[n : n + 3] / scale, gradients[-1], rtol=1e-3, atol=1e-7)


def test_training_lowers_the_loss_and_repeats_its_bits():
    found = []
    for _ in range(2):
        step = make(precision=torch.float16, first_rays=100, samples=2048)
        step.run(1, 2e-2, 0.2)
        first = step.status()
        step.run(60, 2e-2, 0.2)
        status = step.status()
        assert status.updates == 61
        assert status.skipped == 0
        assert status.mean_loss < 0.5 * first.loss
        assert 0.5 * 2048 < status.num_samples <= 2048
        step.store()
        found.append([step.parameters.table.clone(), *(t.clone() for t in step.parameters.density_layers[0])])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert bool((step.weights_of_cells > 0.05).any())


def test_rays_without_room_are_counted_and_become_fewer():
    step = make(samples=1024, first_rays=400)
    step.run(1, 1e-3, 0.1)
    status = step.status()
    assert status.num_samples <= 1024 < status.wanted
    assert status.dropped_rays > 0
    step.run(8, 1e-3, 0.1)
    assert step.status().wanted < 1300


def test_numbers_that_are_not_finite_change_nothing_and_lower_the_scale():
    step = make(precision=torch.float16)
    step.run(3, 1e-2, 0.2)
    good = [tensor.clone() for tensor in step._state()[:-2]]
    step.numbers[graph_step.LOSS_SCALE] = 3e38  # gradients overflow
    step.run(1, 1e-2, 0.2)
    status = step.status()
    assert status.skipped == status.skipped_in_a_row == 1
    assert status.updates == 3
    assert all(torch.equal(a, b) for a, b in zip(good, step._state(), strict=False))
    assert math.isfinite(status.mean_loss)
    step.numbers[graph_step.LOSS_SCALE] = 65536.0
    step.run(1, 1e-2, 0.2)
    assert step.status()[-2] == 0
    step.flat[0] = torch.nan
    step.run(1, 1e-2, 0.2)
    assert step.status().skipped == 2
    step.return_to_good()
    step.run(2, 1e-2, 0.2)
    assert step.status().skipped_in_a_row == 0
    assert step.status().updates == 2


def test_huge_weights_do_not_overflow():
    step = make(precision=torch.float16)
    step.density.weights[0].mul_(3000.0)
    step.run(2, 1e-3, 0.2)
    assert step.status().skipped == 0
    assert all(bool(tensor.isfinite().all()) for tensor in step._state()[:-2])
