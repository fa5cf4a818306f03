"""A first look at a field: color and distance by a few regular samples on each ray."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.errors import InputError
from unrender.fields.early_termination import density_with_early_termination
from unrender.fields.protocol import KnowsDensity, KnowsWay, RadianceField, RenderOutput
from unrender.fields.render_field import ask_in_parts
from unrender.fields.uniform_samples import check_ends, even_rows
from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays, present_rays
from unrender.kernels.composite import composite
from unrender.render.march import Field
from unrender.render.sample import RaySamples

SAMPLES_AT_ONCE = 10_485_760
"""Memory does not depend on the size of the view; 400 × 400 rays go at once, as fewer take longer."""
ROUNDS = (3, 8, 20)
"""Samples of a ray after which it is asked whether any light comes from behind them."""
DARK, FAINT = 1e-6, 1e-4
"""Light below which a ray ends, and weight below which a sample is not asked for its color."""


@torch.no_grad()
def quick_look(
    field: RadianceField | Field,
    camera: Camera,
    background: Float[Tensor, "3"] | None = None,
    *,
    near: float | None = None,
    far: float | None = None,
    num_samples: int = 64,
) -> RenderOutput:
    """Return color and distance of what a camera sees, by few regular samples on each ray: the fastest look there is.

    The ray between near and far is cut into `num_samples` equal parts, and the field is asked in their middles, tᵢ:

    alphaᵢ = 1 − exp(−densityᵢ · step), weightᵢ = alphaᵢ · Π_{j<i} (1 − alphaⱼ)
    opacity = Σ weightᵢ, distance = Σ weightᵢ · tᵢ / Σ weightᵢ, color = Σ weightᵢ · colorᵢ + (1 − opacity) · background

    Where the field knows that it is empty, or where less than a millionth of the light comes from, it is not asked:
    that changes nothing but the time; a color whose weight is below 1e-4 is left out. What is thinner than a part may
    be missed. Distances are along rays, in world units, and 0 where there is nothing: see the opacity.

    near, far: distances along the rays. By default where a ray enters and leaves the field; of one without end, parts
    grow from three half sides of its inner cube on. Any callable serves as a field, if both are given: points and
    directions, both [n, 3], to density per world unit [n] and color [n, 3].
    background: by default the color that the field learned, or black.
    Differentiable in: nothing.
    """
    if camera.batch_shape:
        raise InputError(f"quick_look: `camera` should be one, got {list(camera.batch_shape)}; index it")
    places = _places(field, near, far, num_samples)
    learned: Tensor | None = getattr(field, "background", None)
    if learned is not None:  # what was learned has a precision of its own
        camera, background = camera.to(learned.dtype), learned if background is None else background
    rays, there = present_rays(camera.detach())
    behind = rays.origins.new_zeros(3) if background is None else background.detach().to(rays.origins)
    parts = []
    size = max(1, SAMPLES_AT_ONCE // max(num_samples, 1))
    for begin in range(0, max(len(rays.origins), 1), size):
        part = rays.map(lambda t, begin=begin: t[begin : begin + size])  # type: ignore[misc]
        parts.append(_see(field, part, places(part)))
    opacity, light, color, distance = (torch.cat(each) for each in zip(*parts, strict=True))
    shape = (camera.height, camera.width)
    seen = RenderOutput(behind.repeat(*shape, 1), opacity.new_zeros(shape), opacity.new_zeros(shape))
    seen.color[there] = (color + light[:, None] * behind).clamp(0, 1)
    seen.opacity[there] = opacity
    seen.distance[there] = torch.where(opacity > 0, distance / opacity, 0)
    return seen


def _places(
    field: RadianceField | Field, near: float | None, far: float | None, count: int
) -> Callable[[Rays], RaySamples]:
    """Say where on rays to look."""
    check_ends("quick_look", near, far)
    if isinstance(field, KnowsWay):
        return lambda rays: field.even_samples(rays, count, near=near, far=far)
    if near is None or far is None:
        raise InputError("quick_look: this field does not say where it ends; give `near` and `far`")
    return lambda rays: even_rows(rays, near, far, count)


def _see(field: RadianceField | Field, rays: Rays, samples: RaySamples) -> tuple[Tensor, ...]:
    """Return opacity, the light that is left, and the sums of weighted colors and distances, of each ray."""
    assert samples.offsets is not None
    ray = torch.repeat_interleave(samples.offsets.diff())

    def ask(chosen: Tensor, of: Tensor) -> tuple[Tensor, Tensor]:
        return ask_in_parts(field, _points(rays, samples, chosen, of), rays.directions[of])

    if isinstance(field, KnowsDensity):
        density = density_with_early_termination(
            lambda due, of: field.density_at(_points(rays, samples, due, of)),
            samples,
            rounds=ROUNDS,
            stop=DARK,
        )
    else:
        density, colors = ask(torch.arange(len(ray), device=ray.device), ray)
    found = composite(density, samples.lengths, None, samples.distances, offsets=samples.offsets)
    seen = (found.weights > FAINT).nonzero()[:, 0]
    of = ray[seen]
    color = ask(seen, of)[1] if isinstance(field, KnowsDensity) else colors[seen]
    total = color.new_zeros(len(rays.origins), 3).index_add_(0, of, found.weights[seen, None] * color)
    assert found.distance is not None
    return found.opacity, found.transmittance, total, found.distance


def _points(rays: Rays, samples: RaySamples, chosen: Tensor, ray: Tensor) -> Tensor:
    """Return where some samples are, of rays with these numbers."""
    return torch.addcmul(rays.origins[ray], samples.distances[chosen, None], rays.directions[ray])
