"""A trainable sparse grid."""

import math

import pytest
import torch

from unrender.errors import InputError
from unrender.fields.harmonics import spherical_harmonics
from unrender.fields.voxels import SparseVoxels
from unrender.geometry.rays import Rays
from unrender.geometry.scene_box import SceneBox
from unrender.losses.depth import depth_loss


def some_field(contracted: bool = False, degree: int = 2) -> SparseVoxels:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(8, 8, 8, generator=generator) < 0.5
    field = SparseVoxels.from_mask(
        mask,
        SceneBox.cube(
            torch.tensor([1.0, 2.0, 3.0]) + (0.0 if contracted else 2.0),
            0.5 if contracted else 2.0,
            contracted=contracted,
        ),
        near=0.25,
        degree=degree,
    )
    with torch.no_grad():
        field.log_density += torch.randn(field.log_density.shape, generator=generator)
        field.harmonics += 0.3 * torch.randn(field.harmonics.shape, generator=generator)
    return field


def some_points(field: SparseVoxels, count: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    low, side = torch.tensor([1.0, 2.0, 3.0]), 4.0
    points = low + side * torch.rand(count, 3, generator=generator)
    return points, torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)


@pytest.mark.parametrize("contracted", [False, True])
def test_splitting_voxels_leaves_the_field_as_it_is(contracted):
    field = some_field(contracted)
    arguments = some_points(field)
    for degree in (None, 3):
        split = field.split(degree)
        assert split.degree == (degree or field.degree)
        assert (split.near, split.scene_box) == (field.near, field.scene_box)
        for before, after in zip(field(*arguments), split(*arguments), strict=True):
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_voxels_that_are_kept_stay_as_they_are():
    field = some_field()
    chosen = torch.arange(field.table.num_voxels) % 3 > 0
    kept, old = field.keep(chosen)
    assert kept.table.num_voxels == int(chosen.sum())
    assert kept.near == field.near
    torch.testing.assert_close(kept.log_density, field.log_density[old])
    points, directions = some_points(field)
    (before, _), (after, _) = field(points, directions), kept(points, directions)
    assert bool(((after == 0) | (after == before)).all())
    assert 0 < int((after > 0).sum()) < int((before > 0).sum())


def test_a_march_adds_up_what_the_field_says():
    field = some_field()
    origin, direction = (
        torch.tensor([0.0, 1.0, 2.0]),
        torch.nn.functional.normalize(torch.tensor([1.0, 0.9, 1.1]), dim=0),
    )
    rays = Rays(origin[None], direction[None])
    seen = field.march(rays, steps_per_voxel=16)
    t = torch.linspace(0, 10, 40_001)
    points = origin + t[:, None] * direction
    density, color = field(points, direction.expand_as(points))
    alpha = 1 - torch.exp(-density * 10 / 40_000)
    left = torch.cat([torch.ones(1), (1 - alpha).cumprod(0)[:-1]])
    weight = left * alpha
    torch.testing.assert_close(seen.opacity[0], weight.sum(), rtol=0.01, atol=0.01)
    torch.testing.assert_close(seen.color[0], (weight[:, None] * color).sum(0), rtol=0.01, atol=0.01)
    torch.testing.assert_close(seen.distance[0], (weight * t).sum() / weight.sum(), rtol=0.01, atol=0.02)


def test_fog_has_the_opacity_asked_for():
    field = SparseVoxels.from_mask(
        torch.ones(4, 4, 4, dtype=torch.bool), SceneBox.cube(torch.full((3,), 0.5), 0.5), opacity=0.1
    )
    torch.testing.assert_close(field.opacities(), torch.full((125,), 0.1))
    ray = Rays(torch.tensor([[-1.0, 0.5, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(field.march(ray).opacity, torch.tensor([1 - 0.9**4]))


def test_spherical_harmonics_are_orthonormal():
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(
        torch.randn(400_000, 3, generator=generator, dtype=torch.float64), dim=-1
    )
    values = spherical_harmonics(directions, 3)
    products = values.mT @ values / len(values) * 4 * math.pi
    torch.testing.assert_close(products, torch.eye(16, dtype=torch.float64), atol=0.02, rtol=0)


def test_harmonics_have_degrees_up_to_3():
    with pytest.raises(InputError, match="0 to 3, got 4"):
        spherical_harmonics(torch.tensor([0.0, 0.0, 1.0]), 4)


def slab(haze: float = 0.02) -> SparseVoxels:
    """A dense half x > 0 of the box of 2 units around the origin, and haze of some opacity per voxel before it."""
    box = SceneBox.cube(torch.zeros(3), 1.0)
    field = SparseVoxels.from_mask(torch.ones(16, 16, 16, dtype=torch.bool), box, degree=0, opacity=haze)
    with torch.no_grad():
        field.log_density[field.table.corner_positions[:, 0] > 8] = 4.0
    return field


def rays_along_x(count: int = 200) -> Rays:
    generator = torch.Generator().manual_seed(0)
    origins = torch.rand(count, 3, generator=generator) - 0.5
    origins[:, 0] = -3.0
    return Rays(origins, torch.tensor([1.0, 0.0, 0.0]).expand(count, 3))


@pytest.mark.parametrize("contracted", [False, True])
def test_weights_of_training_sum_to_the_opacity(contracted):
    field = some_field(contracted)
    points, directions = some_points(field)
    rays = Rays(points - 4 * directions, directions)
    samples, weights = field.training_weights(rays, torch.Generator().manual_seed(3))
    (rendered,) = field.training_outputs(rays, torch.Generator().manual_seed(3))
    ray = torch.repeat_interleave(samples.offsets.diff())
    sums = torch.zeros(len(points)).index_add(0, ray, weights)
    assert sums.max() > 0.5
    torch.testing.assert_close(sums, rendered.opacity, rtol=1e-4, atol=1e-4)


def test_the_depth_loss_removes_haze_before_a_surface_that_is_too_deep():
    """A loss of the mean distance would add haze there, which shifts the mean."""
    field = slab()
    samples, weights = field.training_weights(rays_along_x(), torch.Generator().manual_seed(0))
    depth_loss(weights, samples.distances, samples.offsets, torch.full((200,), 2.95)).backward()
    x = field.table.corner_positions[:, 0]
    before = field.log_density.grad[(x < 5) & (field.log_density.grad != 0)]
    assert len(before) > 100
    assert before.min() > 0
