import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrender import (
    Camera,
    InputError,
    Rays,
    RaySamples,
    ShapeError,
    Volume,
    march,
    random_pixels,
    rays_of,
    rays_through,
    sample_importance,
    sample_occupied,
    sample_stratified,
    sample_uniform,
    samples_at,
)

CAMERA = Camera.look_at([0.3, 0.4, -3.0], fov_degrees=50.0, height=9, width=11).to(torch.float64)
LOW, HIGH = torch.tensor([-1.0, -0.8, -0.6]).double(), torch.tensor([1.0, 0.8, 0.9]).double()


def blob(points, directions):
    """A smooth field whose color depends on the direction."""
    return 4 * torch.exp(-3 * points.square().sum(-1)), 0.5 + 0.5 * directions


def volume(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    density = 3 * torch.rand(6, 5, 7, generator=generator, dtype=dtype)
    color = torch.rand(6, 5, 7, 3, generator=generator, dtype=dtype)
    return Volume.in_box(density, LOW.to(dtype), HIGH.to(dtype), color)


def test_more_samples_converge_to_one_picture():
    pictures = [march(blob, rays_of(CAMERA), sample_uniform(1.0, 6.0, n)).color for n in (40, 80, 160, 1280)]
    errors = [float((picture - pictures[-1]).abs().max()) for picture in pictures[:-1]]
    assert errors[0] < 0.01
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 3


@given(st.integers(1, 5))
def test_matter_in_layers_is_exact_however_it_is_cut(finer):
    layers, hues = torch.tensor([0.5, 2.0, 0.0, 1.5]).double(), torch.tensor([0.2, 0.9, 0.4, 0.7]).double()

    def field(points, directions):
        layer = points[:, 2].floor().long()
        return layers[layer], hues[layer, None]

    rays = Rays(torch.zeros(1, 3).double(), torch.tensor([[0.0, 0.0, 1.0]]).double())
    seen = march(field, rays, sample_uniform(0.0, 4.0, 4 * finer), background=torch.ones(1).double())
    light, color = 1.0, 0.0
    for layer, hue in zip(layers.tolist(), hues.tolist(), strict=True):
        color += light * (1 - math.exp(-layer)) * hue
        light *= math.exp(-layer)
    torch.testing.assert_close(seen.opacity.item(), 1 - light)
    torch.testing.assert_close(seen.color.item(), color + light)


def test_alphas_are_taken_as_they_are():
    def field(points, directions):
        return torch.full((len(points),), 0.5), torch.ones(len(points), 1)

    rays = Rays(torch.zeros(2, 3), torch.eye(3)[:2])
    for lengths in (0.1, 10.0):
        assert (
            march(field, rays, sample_uniform(0.0, lengths, 2), gives="alpha").opacity.tolist() == [0.75] * 2
        )


def test_parts_make_no_difference():
    rays, box = rays_of(CAMERA), volume()
    occupied = torch.rand(6, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.4
    for samples in (
        sample_uniform(*box.clip(rays), 20),
        sample_uniform(1.0, 5.0, 20),
        sample_occupied(rays, occupied, box.volume_from_world, 0.1),
        lambda part: sample_occupied(part, occupied, box.volume_from_world, 0.1),
        lambda part: sample_uniform(*box.clip(part), 20),
    ):
        whole = march(box, rays, samples, background=torch.ones(3).double(), keep_samples=True)
        parts = march(
            box, rays, samples, background=torch.ones(3).double(), keep_samples=True, rays_per_chunk=7
        )
        for name in ("color", "opacity", "distance", "weights"):
            assert torch.equal(getattr(whole, name), getattr(parts, name))
        assert whole.color.shape == (9, 11, 3)


def test_gradients_reach_volume_and_camera():
    box = volume()
    eye = torch.tensor([0.3, 0.4, -3.0]).double()

    def picture(density, color, eye):
        camera = Camera.look_at(eye, fov_degrees=50.0, height=2, width=3)
        rays = rays_of(camera)
        field = box.replace(density=density, color=color)
        seen = march(field, rays, sample_uniform(2.0, 4.0, 13), background=torch.zeros(3).double())
        return seen.color, seen.opacity, seen.distance

    leaves = [t.clone().requires_grad_() for t in (box.density, box.color, eye)]
    assert torch.autograd.gradcheck(picture, leaves, fast_mode=True)


def test_nothing_seen_has_finite_gradients():
    empty = volume().replace(density=torch.zeros(6, 5, 7).double().requires_grad_())
    seen = march(empty, rays_of(CAMERA), sample_uniform(1.0, 5.0, 8), background=torch.ones(3).double())
    assert torch.equal(seen.color, torch.ones(9, 11, 3).double())
    assert not seen.distance.any()
    (seen.color.sum() + seen.distance.sum()).backward()
    assert empty.density.grad.isfinite().all()


def test_skipping_what_is_empty_sees_the_same():
    box = volume()
    box = box.replace(
        density=torch.where(
            torch.rand(6, 5, 7, generator=torch.Generator().manual_seed(2)) < 0.02, 5, 0.0
        ).double()
    )
    near = torch.nn.functional.max_pool3d(box.density[None, None], 3, 1, 1)[0, 0] > 0
    rays = rays_of(CAMERA)
    skipping = sample_occupied(rays, near, box.volume_from_world, 0.01)
    everywhere = sample_occupied(rays, torch.ones_like(near), box.volume_from_world, 0.01)
    assert 0 < len(skipping.distances) < 0.8 * len(everywhere.distances)
    torch.testing.assert_close(
        march(box, rays, skipping).color, march(box, rays, everywhere).color, atol=1e-12, rtol=0
    )


@given(st.integers(2, 30), st.integers(0, 50))
def test_parts_of_the_ray_add_up_to_its_stretch(num, seed):
    generator = torch.Generator().manual_seed(seed)
    near, far = torch.rand(2, 6, generator=generator, dtype=torch.float64)
    for samples in (
        sample_uniform(near, near + far, num),
        sample_stratified(near, near + far, num, generator=generator),
    ):
        torch.testing.assert_close(samples.lengths.sum(-1), far)
        assert (samples.distances.diff() >= 0).all()
        more = sample_importance(
            samples, torch.rand(6, num, generator=generator).double(), 9, generator=generator
        )
        torch.testing.assert_close(more.lengths.sum(-1), far)
        assert more.distances.shape == (6, num + 9)
        past = torch.maximum(near[:, None] - more.distances, more.distances - (near + far)[:, None])
        assert past.max() < 1e-12
    backwards = sample_uniform(near, near - 1, num)
    assert not backwards.lengths.any()


def test_importance_follows_the_weights():
    samples = sample_uniform(torch.zeros(1), torch.ones(1), 4)
    weights = torch.tensor([[0.1, 0.0, 0.6, 0.3]])
    found = sample_importance(samples, weights, 1000, keeps_old=False).distances
    shares = torch.histc(found, 4, 0, 1) / 1000
    torch.testing.assert_close(shares, weights[0], atol=2e-3, rtol=0)
    even = sample_importance(samples, torch.zeros(1, 4), 4, keeps_old=False)
    torch.testing.assert_close(even.distances, samples.distances)
    some = torch.Generator().manual_seed(0)
    random = sample_importance(samples, weights, 1000, generator=some, keeps_old=False).distances
    assert torch.equal(random, random.sort().values)
    torch.testing.assert_close(torch.histc(random, 4, 0, 1) / 1000, weights[0], atol=2e-3, rtol=0)


def test_random_pixels_are_of_all_views():
    pixels = random_pixels(2000, num_views=3, height=4, width=5, generator=torch.Generator().manual_seed(0))
    cells = (pixels.views * 4 + pixels.rows) * 5 + pixels.columns
    assert torch.bincount(cells, minlength=60).min() > 10
    assert len(torch.bincount(cells)) == 60
    assert pixels.centers[0].tolist() == [pixels.columns[0] + 0.5, pixels.rows[0] + 0.5]
    rays = rays_through(CAMERA, pixels.centers.double())
    torch.testing.assert_close(
        rays.directions[0], rays_through(CAMERA, pixels.centers[:1].double()).directions[0]
    )


RAYS = Rays(torch.zeros(4, 3), torch.eye(3)[[0, 1, 2, 0]])
TWO, THREE = sample_uniform(0.0, 1.0, 2), torch.ones(3)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: march(lambda p, d: (p[:, :1], p), RAYS, TWO), ShapeError, "should return 8 densities"),
        (lambda: march(blob, RAYS, sample_uniform(torch.zeros(3), 1.0, 2)), ShapeError, r"the axes of `rays`, \[4\]"),
        (lambda: march(blob, RAYS, TWO, gives="light"), InputError, "'density' or 'alpha'"),
        (lambda: march(blob, RAYS, TWO, rays_per_chunk=0), InputError, "at least 1, got 0"),
        (lambda: sample_uniform(0.0, 1.0, 0), InputError, "sample_uniform: `num_samples` should be at least 1"),
        (lambda: RaySamples(torch.ones(3), torch.ones(3), torch.tensor([0, 2])), InputError, "`offsets` should rise"),
        (lambda: sample_occupied(RAYS, torch.ones(1, 1, 1) > 0, torch.eye(4), 0.0), InputError, "`step` should be"),
        (lambda: sample_importance(samples_at(THREE[:1], 0.0, 2.0), THREE[:1], 2), InputError, "at least 2"),
        (lambda: random_pixels(3, height=0, width=1), InputError, "there are no pixels"),
        (lambda: march(blob, RAYS, RaySamples(THREE, THREE, torch.tensor([0, 3]))), ShapeError, "for 1 rays"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_no_rays_are_no_error():
    none = Rays(torch.zeros(0, 3), torch.zeros(0, 3))
    assert march(blob, none, sample_uniform(0.0, 1.0, 3)).color.shape == (0, 3)
    assert samples_at(torch.zeros(0, 3), 0.0, 1.0).lengths.shape == (0, 3)
