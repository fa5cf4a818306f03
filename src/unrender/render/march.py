"""Volume rendering: a field, rays and samples along them become color, opacity and distance."""

from collections.abc import Callable, Iterator
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked, describe_value
from unrender._struct import TensorStruct
from unrender.errors import InputError, ShapeError
from unrender.geometry.rays import Rays
from unrender.kernels.composite import Composited, composite, composite_alphas
from unrender.render.sample import RaySamples

FieldFunction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Points and unit directions, both [n, 3], to density [n] and color [n, channels]."""


@runtime_checkable
class FieldAlongRays(Protocol):
    """A field for which points with a common direction cost less."""

    def along_rays(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Return density and color at points [rays, samples, 3], for one direction of each ray [rays, 3]."""
        ...


Sampler = Callable[[Rays], RaySamples]
"""Rays [n] to samples along them."""


class RenderOutput(TensorStruct):
    """What rays render to: the result of every renderer of fields and volumes."""

    color: Float[Tensor, "*batch channels"]
    """Composited on the background, if one was given, else on black."""
    opacity: Float[Tensor, "*batch"]
    """Sum of the weights, in [0, 1]."""
    distance: Float[Tensor, "*batch"]
    """Mean distance along the ray, Σ weight · distance / Σ weight, in world units; 0 where nothing is visible."""
    weights: Float[Tensor, "..."] | None = None
    """Weight of each sample, in the axes of the samples; only with `keep_samples`."""
    samples: RaySamples | None = None
    """The samples; only with `keep_samples`."""


@checked
def march(
    field: FieldFunction,
    rays: Rays,
    samples: RaySamples | Sampler,
    *,
    background: Float[Tensor, "*#batch channels"] | None = None,
    gives: Literal["density", "alpha"] = "density",
    stop_below: float = 0.0,
    keep_samples: bool = False,
    rays_per_chunk: int = 16_384,
) -> RenderOutput:
    """Render rays through a field by volume rendering (emission and absorption).

    color = Σ weight_i · color_i + T · background, where weight_i = T_i · alpha_i (see `composite`) and T is the
    transmittance of the whole ray. The field is any callable: points and directions (unit length), both [n, 3], to
    density [n] and color [n, channels]. Densities are per world unit, alpha = 1 − exp(−density · length), so the result
    does not depend on the number of samples once there are enough; with `gives="alpha"`, the field returns alphas.

    samples: one row of samples for all rays, samples for each ray, or a function that samples rays.
    keep_samples: return weights and samples, too.
    rays_per_chunk: rays that are rendered at once. It bounds the memory needed without gradients, and does not change
    the result.

    Differentiable in: what the field depends on, rays, samples, background (not twice).
    """
    if gives not in ("density", "alpha"):
        raise InputError(f"march: `gives` should be 'density' or 'alpha', got {gives!r}")
    if rays_per_chunk < 1:
        raise InputError(f"march: `rays_per_chunk` should be at least 1, got {rays_per_chunk}")
    batch = rays.batch_shape
    flat = Rays(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3))
    if isinstance(samples, RaySamples):
        _check_samples(samples, batch)
    rendered, sampled = [], []
    for chunk, own in _chunks(flat, samples, rays_per_chunk):
        result = _march(field, chunk, own, gives, stop_below)
        rendered.append((result.opacity, result.transmittance, result.color, result.distance))
        if keep_samples:
            sampled.append((result.weights, own))
    opacity, transmittance, color, distance = (torch.cat(each) for each in zip(*rendered, strict=True))
    color = color.view(*batch, color.shape[-1])
    if background is not None:
        color = color + transmittance.view(*batch, 1) * background
    output = RenderOutput(color, opacity.view(batch), distance.view(batch))
    return _with_samples(output, sampled) if keep_samples else output


def _with_samples(output: RenderOutput, sampled: list[tuple[Tensor, RaySamples]]) -> RenderOutput:
    """Add the weights and samples of all chunks to an output."""
    weights = torch.cat([weights for weights, _ in sampled])
    distances, lengths = (
        torch.cat([getattr(samples, name) for _, samples in sampled]) for name in ("distances", "lengths")
    )
    if weights.dim() == 2:
        shape = (*output.batch_shape, weights.shape[-1])
        samples = RaySamples(distances.view(shape), lengths.view(shape))
        return output.replace(weights=weights.view(shape), samples=samples)
    counts = [samples.offsets.diff() for _, samples in sampled if samples.offsets is not None]
    offsets = torch.cat([counts[0].new_zeros(1), torch.cat(counts).cumsum(0)])
    return output.replace(weights=weights, samples=RaySamples(distances, lengths, offsets))


def _check_samples(samples: RaySamples, batch: tuple[int, ...]) -> None:
    if samples.offsets is not None:
        if len(samples.offsets) - 1 != torch.Size(batch).numel():
            raise ShapeError(
                f"march: `samples` has offsets for {len(samples.offsets) - 1} rays, and there are {list(batch)}"
            )
    elif samples.batch_shape not in ((), batch):
        raise ShapeError(
            f"march: `samples` should have the axes of `rays`, {list(batch)}, got {list(samples.batch_shape)}"
        )


def _chunks(rays: Rays, samples: RaySamples | Sampler, size: int) -> Iterator[tuple[Rays, RaySamples]]:
    """Split a row of rays, and their samples, into chunks; there is at least one."""
    total = len(rays.origins)
    for start in range(0, max(total, 1), size):
        end = min(start + size, total)
        chunk = Rays(rays.origins[start:end], rays.directions[start:end])
        if not isinstance(samples, RaySamples):
            yield chunk, samples(chunk)
        elif samples.offsets is not None:
            offsets = samples.offsets[start : end + 1]
            own = slice(int(offsets[0]), int(offsets[-1]))
            yield chunk, RaySamples(samples.distances[own], samples.lengths[own], offsets - offsets[0])
        else:
            shape = (total, samples.distances.shape[-1])
            distances, lengths = (
                (t.expand(shape) if t.dim() == 1 else t.reshape(shape))[start:end]
                for t in (samples.distances, samples.lengths)
            )
            yield chunk, RaySamples(distances, lengths)


def _march(
    field: FieldFunction, rays: Rays, samples: RaySamples, gives: str, stop_below: float
) -> Composited:
    if samples.offsets is None:
        origins, directions = (
            t[:, None].expand(*samples.distances.shape, 3) for t in (rays.origins, rays.directions)
        )
    else:
        counts = samples.offsets.diff()
        origins, directions = (t.repeat_interleave(counts, 0) for t in (rays.origins, rays.directions))
    points = torch.addcmul(origins, samples.distances[..., None], directions)
    if samples.offsets is None and isinstance(field, FieldAlongRays):
        density, color = (t.flatten(0, 1) for t in field.along_rays(points, rays.directions))
    else:
        density, color = field(points.reshape(-1, 3), directions.reshape(-1, 3))
    num = samples.distances.numel()
    if density.shape != (num,) or color.dim() != 2 or len(color) != num:
        raise ShapeError(
            f"march: `field` should return {num} densities and rows of color for as many points, got "
            f"{describe_value(density)} and {describe_value(color)}"
        )
    density = density.view(samples.distances.shape)
    color = color.view(*samples.distances.shape, color.shape[-1])
    offsets = samples.offsets
    if gives == "alpha":
        return composite_alphas(density, color, samples.distances, offsets=offsets, stop_below=stop_below)
    return composite(
        density, samples.lengths, color, samples.distances, offsets=offsets, stop_below=stop_below
    )
