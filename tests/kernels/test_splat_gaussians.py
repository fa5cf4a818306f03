"""Compositing of projected Gaussians: numba and Warp against the definition, and against formulas."""

import math

import pytest
import torch

from check_kernel import HAS_WARP, assert_same_bits, either_kernel, implementations, needs_cuda, num_threads
from splat_files import gaussians_on
from unrender import Camera, GaussianField, ico_sphere, measure_depth
from unrender.errors import InputError, ShapeError
from unrender.kernels.splat_gaussians import cpu, splat_gaussians, splat_weights

SIZE = {"height": 37, "width": 45}


def some_splats(count=300):
    """Return Gaussians of many sizes, some outside of the image, some with invalid covariances."""
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(count, 2, generator=generator) * torch.tensor([60.0, 50]) - 6
    factor = 1.5 * torch.randn(count, 2, 2, generator=generator)
    covariances = factor @ factor.mT + 0.3 * torch.eye(2)
    covariances = torch.stack([covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]], -1)
    covariances[::50, 1] = 1e4
    opacities = torch.rand(count, generator=generator)
    distances = (1 + 3 * torch.rand(count, generator=generator)).sort().values
    gradients = 0.01 * torch.randn(count, 2, generator=generator)
    colors = torch.rand(count, 3, generator=generator)
    return [means, covariances, opacities, distances, gradients, colors]


def test_agrees_with_the_definition(monkeypatch):
    monkeypatch.setattr(cpu, "MAX_ENTRIES", 500)  # several bands of tiles
    splats = some_splats()
    with implementations("reference"):
        image, weights = splat_gaussians(*splats, **SIZE), splat_weights(*splats[:3], **SIZE)
    found = []
    for threads in (1, 2):
        with num_threads(threads):
            found.append((*splat_gaussians(*splats, **SIZE), *splat_weights(*splats[:3], **SIZE)))
    assert_same_bits(*found)
    if HAS_WARP:
        with implementations("warp"):
            found.append((*splat_gaussians(*splats, **SIZE), *splat_weights(*splats[:3], **SIZE)))
    for results in found[1:]:
        torch.testing.assert_close(results, (*image, *weights), rtol=1e-4, atol=1e-5)
    assert float(image.opacity.min()) < 0.5 < 0.99 < float(image.opacity.max())
    pixel = torch.arange(37 * 45).repeat_interleave(weights.offsets.diff())
    total = torch.zeros(37 * 45).index_add_(0, pixel, weights.weights)
    torch.testing.assert_close(total.view(37, 45), image.opacity)


def test_double_precision_is_reduced():
    splats = some_splats(20)
    doubles = [values.double() for values in splats]
    for wanted, found in (
        (splat_gaussians(*splats, **SIZE), splat_gaussians(*doubles, **SIZE)),
        (splat_weights(*splats[:3], **SIZE), splat_weights(*doubles[:3], **SIZE)),
    ):
        for value, double in zip(wanted, found, strict=True):
            expected = value.double() if value.is_floating_point() else value
            torch.testing.assert_close(double, expected, rtol=0, atol=0)


@either_kernel
def test_one_gaussian_is_the_formula(kernels):
    mean, opacity = torch.tensor([[20.25, 11.5]]), torch.tensor([0.8])
    covariance = torch.tensor([[9.0, 2.0, 4.0]])
    color = torch.tensor([[1.0, 0.5, 0.25]])
    with implementations(kernels):
        image = splat_gaussians(
            mean, covariance, opacity, torch.tensor([3.0]), torch.tensor([[0.02, -0.01]]), color, **SIZE
        )
    inverse = torch.linalg.inv(torch.tensor([[9.0, 2.0], [2.0, 4.0]]))
    y, x = torch.meshgrid(torch.arange(37) + 0.5, torch.arange(45) + 0.5, indexing="ij")
    offset = torch.stack([x, y], -1) - mean
    alpha = 0.8 * torch.exp(-0.5 * (offset[..., None, :] @ inverse @ offset[..., None])[..., 0, 0])
    alpha = torch.where(alpha >= 1 / 255, alpha, 0)
    torch.testing.assert_close(image.opacity, alpha)
    torch.testing.assert_close(image.color, alpha[..., None] * color[0])
    distance = 3 + (offset * torch.tensor([0.02, -0.01])).sum(-1)
    torch.testing.assert_close(image.distance, torch.where(alpha > 0, distance, 0))


@either_kernel
def test_front_to_back_with_limits(kernels):
    """Two opaque layers leave 1 % of 1 % of the light: the second is left out, as the transmittance would be 10⁻⁴."""
    count = 3
    means, covariances = torch.full((count, 2), 4.5), torch.tensor([[1e6, 0.0, 1e6]]).expand(count, 3)
    opacities, distances = torch.tensor([0.5, 1.0, 1.0]), torch.tensor([1.0, 2.0, 3.0])
    with implementations(kernels):
        found = splat_weights(means, covariances, opacities, height=9, width=9)
        image = splat_gaussians(
            means, covariances, opacities, distances, torch.zeros(count, 2), torch.eye(3), height=9, width=9
        )
    center = slice(int(found.offsets[40]), int(found.offsets[41]))
    expected = torch.tensor([0.5, 0.5 * 0.99])
    torch.testing.assert_close(found.weights[center], expected)
    assert found.gaussian_ids[center].tolist() == [0, 1]
    torch.testing.assert_close(image.color[4, 4], torch.tensor([0.5, 0.495, 0.0]))
    assert math.isclose(float(image.distance[4, 4]), 1.49 / 0.995, rel_tol=1e-5)


@either_kernel
def test_nothing_to_see(kernels):
    bad = torch.tensor([[math.nan, 1.0], [math.inf, 2.0], [5.0, 5.0], [5.0, 5.0], [1e9, 5.0]])
    covariances = torch.tensor([[1.0, 0, 1], [1, 0, 1], [1, 2, 1], [1, 0, 1], [1, 0, 1]])
    opacities = torch.tensor([1.0, 1.0, 1.0, 0.003, 1.0])
    for chosen in (slice(0), slice(None)):
        few = [t[chosen] for t in (bad, covariances, opacities)]
        count = len(few[0])
        with implementations(kernels):
            image = splat_gaussians(
                *few, torch.ones(count), torch.ones(count, 2), torch.ones(count, 3), height=9, width=10
            )
            weights = splat_weights(*few, height=9, width=10)
        assert not any(bool(values.any()) for values in image)
        assert len(weights.weights) == 0
        assert weights.offsets.tolist() == [0] * 91


def test_wrong_input_is_named():
    splats = some_splats(3)
    with pytest.raises(InputError, match="`height` and `width` should be at least 1, got 0 and 5"):
        splat_gaussians(*splats, height=0, width=5)
    with pytest.raises(ShapeError, match="splat_weights: `covariances`"):
        splat_weights(splats[0], splats[0], splats[2], height=5, width=5)


@needs_cuda
def test_agrees_with_the_definition_on_a_gpu():
    splats = some_splats()
    with implementations("reference"):
        wanted = (*splat_gaussians(*splats, **SIZE), *splat_weights(*splats[:3], **SIZE))
    on_gpu = [values.cuda() for values in splats]
    with implementations("fast") as loaded:
        found = (*splat_gaussians(*on_gpu, **SIZE), *splat_weights(*on_gpu[:3], **SIZE))
        again = (*splat_gaussians(*on_gpu, **SIZE), *splat_weights(*on_gpu[:3], **SIZE))
    assert ("splat_gaussians", "gpu") in loaded
    assert_same_bits(found, again)
    torch.testing.assert_close(tuple(values.cpu() for values in found), wanted, rtol=1e-4, atol=1e-5)


@needs_cuda
def test_fields_of_gaussians_render_on_a_gpu():
    field = GaussianField(gaussians_on(ico_sphere(3), 3000, opacity=0.98))
    camera = Camera.look_at((2.0, 1.5, 2.5), height=32, width=40)
    for view in (camera, camera.to_equirectangular(32)):
        one, other = field.render(view), field.to("cuda").render(view)
        torch.testing.assert_close(one.color, other.color.cpu(), rtol=1e-3, atol=1e-3)
        depth, on_gpu = measure_depth(field, view), measure_depth(field.to("cuda"), view)
        close = (depth.median_distance - on_gpu.median_distance.cpu()).abs() < 1e-3
        assert float(close.float().mean()) > 0.99
