"""Fast rendering of a field: color and distance from a few uniform samples on each ray."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.errors import InputError
from unrender.fields.callable_field import as_field
from unrender.fields.early_termination import density_with_early_termination
from unrender.fields.protocol import Field
from unrender.fields.render_field import (
    density_in_chunks,
    device_of,
    empty_output,
    fill_rows,
    query_in_chunks,
)
from unrender.fields.uniform_samples import check_interval
from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays, present_rays
from unrender.kernels.composite import composite
from unrender.render.march import FieldFunction, RenderOutput
from unrender.render.sample import RaySamples

SAMPLES_PER_CHUNK = 10_485_760
"""Bounds the memory, independent of the size of the view; chunks below 400 × 400 rays of 64 samples are slower."""
ROUNDS = (3, 8, 20)
"""Samples of a ray after which early termination is tested."""
STOP, SKIP = 1e-6, 1e-4
"""Transmittance at which a ray ends, and weight below which the color of a sample is not evaluated."""


@torch.no_grad()
def quick_look(
    field: Field | FieldFunction,
    camera: Camera,
    background: Float[Tensor, "3"] | None = None,
    *,
    near: float | None = None,
    far: float | None = None,
    num_samples: int = 64,
) -> RenderOutput:
    """Render a field from few uniform samples on each ray: use it for previews.

    The ray from near to far is divided into `num_samples` equal intervals, and the field evaluated at their centers tᵢ:

    alphaᵢ = 1 − exp(−densityᵢ · step), weightᵢ = alphaᵢ · Π_{j<i} (1 − alphaⱼ)
    opacity = Σ weightᵢ, distance = Σ weightᵢ · tᵢ / Σ weightᵢ, color = Σ weightᵢ · colorᵢ + (1 − opacity) · background

    Known empty space is skipped, and rays terminate at a transmittance of 1e-6; neither changes the result visibly.
    Colors of weights below 1e-4 are left out. Surfaces thinner than an interval may be missed.

    near, far: distances along the rays. By default where a ray enters and leaves the field; in contracted space,
    intervals grow from three half extents of the box on. Any function serves as a field if both are given: points and
    directions, both [n, 3], to density per world unit [n] and color [n, 3].
    background: by default the field's own; black for a function.
    Differentiable in: nothing.
    """
    if camera.batch_shape:
        raise InputError(f"quick_look: `camera` should be one, got {list(camera.batch_shape)}; index it")
    check_interval("quick_look", near, far)
    known = as_field(field, near=near, far=far)
    camera = camera.to(device_of(field, camera))
    if isinstance(field, Field):  # parameters have a precision of their own
        camera = camera.to(known.background.dtype)
    rays, valid = present_rays(camera.detach())
    background_color = (known.background if background is None else background).detach().to(rays.origins)
    size = max(1, SAMPLES_PER_CHUNK // max(num_samples, 1))
    chunks = []
    for start in range(0, max(len(rays.origins), 1), size):
        chunk = rays.map(lambda t, start=start: t[start : start + size])  # type: ignore[misc]
        samples = known.sample_uniform(chunk, num_samples, near=near, far=far)
        chunks.append(_render(known, chunk, samples, background_color))
    color, opacity, distance = (torch.cat(each) for each in zip(*chunks, strict=True))
    output = empty_output(camera, background_color)
    fill_rows(output, slice(None), valid, RenderOutput(color, opacity, distance))
    return output


def _render(
    field: Field, rays: Rays, samples: RaySamples, background: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return color, opacity and distance of each ray."""
    assert samples.offsets is not None
    ray = torch.repeat_interleave(samples.offsets.diff())
    density = density_with_early_termination(
        lambda chosen, of: density_in_chunks(field, _points(rays, samples, chosen, of)),
        samples,
        rounds=ROUNDS,
        stop=STOP,
    )
    found = composite(density, samples.lengths, None, samples.distances, offsets=samples.offsets)
    visible = (found.weights > SKIP).nonzero()[:, 0]
    of = ray[visible]
    colors = query_in_chunks(field, _points(rays, samples, visible, of), rays.directions[of])[1]
    total = colors.new_zeros(len(rays.origins), 3)
    total.index_add_(0, of, found.weights[visible, None] * colors)
    assert found.distance is not None
    return total + found.transmittance[:, None] * background, found.opacity, found.distance


def _points(rays: Rays, samples: RaySamples, chosen: Tensor, ray: Tensor) -> Tensor:
    """Return the positions of some samples, on rays with these numbers."""
    return torch.addcmul(rays.origins[ray], samples.distances[chosen, None], rays.directions[ray])
