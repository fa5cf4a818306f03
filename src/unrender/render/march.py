"""Marching: a field, rays and places along them become color, opacity and distance."""

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked, describe_value
from unrender._struct import TensorStruct
from unrender.errors import InputError, ShapeError
from unrender.geometry.rays import Rays
from unrender.kernels.composite import composite, composite_alphas
from unrender.render.sample import RaySamples

Field = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Points and directions, in rows of 3, to density and color of each."""
Sampler = Callable[[Rays], RaySamples]


class Marched(TensorStruct):
    """What rays saw in a field."""

    color: Float[Tensor, "*batch channels"]
    """Of what is seen, and of the background where that shines through."""
    opacity: Float[Tensor, "*batch"]
    """Share of the light from behind that does not come through, in [0, 1]."""
    distance: Float[Tensor, "*batch"]
    """Σ weight · distance along the ray, in world units; of rays that see nothing, 0."""
    weights: Float[Tensor, "..."] | None = None
    """Of each sample, in the axes of the samples."""
    samples: RaySamples | None = None
    """Where they were taken, if the field chose the places itself."""

    @property
    def mean_distance(self) -> Float[Tensor, "*batch"]:
        """How far what is seen is on average: `distance` / `opacity`, and 0 where nothing is."""
        seen = self.opacity > 0
        return torch.where(seen, self.distance / torch.where(seen, self.opacity, 1), 0)


@checked
def march(
    field: Field,
    rays: Rays,
    samples: RaySamples | Sampler,
    *,
    background: Float[Tensor, "*#batch channels"] | None = None,
    gives: Literal["density", "alpha"] = "density",
    stop_below: float = 0.0,
    keeps_weights: bool = False,
    rays_at_once: int = 16_384,
) -> Marched:
    """Look along rays through a field that absorbs light and shines.

    color = Σ weight_i · color_i + T · background, where weight_i = T_i · alpha_i (see `composite`) and T is the light
    that is left. The field is any callable: points and directions (unit length), both [n, 3], to what it absorbs [n]
    and color [n, channels]. It gives a density per world unit, with alpha = 1 − exp(−density · length), so that the
    picture does not depend on how many samples are taken, if they are enough; or, with `gives="alpha"`, alphas
    themselves, of which every sample takes its share.

    `samples` are places on each ray, one row that serves all rays, or a function that finds them for a row of rays.
    Rays are marched a part at a time: memory without gradients is that of `rays_at_once` rays, and results do not
    depend on it.

    Differentiable in: what the field depends on, rays, samples, background (not twice).
    """
    if gives not in ("density", "alpha"):
        raise InputError(f"march: `gives` should be 'density' or 'alpha', got {gives!r}")
    if rays_at_once < 1:
        raise InputError(f"march: `rays_at_once` should be at least 1, got {rays_at_once}")
    batch = rays.batch_shape
    flat = Rays(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3))
    if isinstance(samples, RaySamples):
        _check_samples(samples, batch)
    parts = []
    for part, places in _parts(flat, samples, rays_at_once):
        seen = _march(field, part, places, gives, stop_below)
        parts.append(seen if keeps_weights else (seen[0][:0], *seen[1:]))
    weights, opacity, light, color, distance = (torch.cat(each) for each in zip(*parts, strict=True))
    color = color.view(*batch, color.shape[-1])
    if background is not None:
        color = color + light.view(*batch, 1) * background
    if keeps_weights and weights.dim() == 2:
        weights = weights.view(*batch, weights.shape[-1])
    return Marched(color, opacity.view(batch), distance.view(batch), weights if keeps_weights else None)


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


def _parts(rays: Rays, samples: RaySamples | Sampler, size: int) -> Iterator[tuple[Rays, RaySamples]]:
    """Cut a row of rays, and their samples, into parts; there is at least one."""
    total = len(rays.origins)
    for begin in range(0, max(total, 1), size):
        end = min(begin + size, total)
        part = Rays(rays.origins[begin:end], rays.directions[begin:end])
        if not isinstance(samples, RaySamples):
            yield part, samples(part)
        elif samples.offsets is not None:
            offsets = samples.offsets[begin : end + 1]
            mine = slice(int(offsets[0]), int(offsets[-1]))
            yield (
                part,
                RaySamples(samples.distances[mine], samples.lengths[mine], offsets - offsets[0]),
            )
        else:
            shape = (total, samples.distances.shape[-1])
            distances, lengths = (
                (t.expand(shape) if t.dim() == 1 else t.reshape(shape))[begin:end]
                for t in (samples.distances, samples.lengths)
            )
            yield part, RaySamples(distances, lengths)


def _march(
    field: Field, rays: Rays, samples: RaySamples, gives: str, stop_below: float
) -> tuple[Tensor, ...]:
    if samples.offsets is None:
        origins, directions = (
            t[:, None].expand(*samples.distances.shape, 3) for t in (rays.origins, rays.directions)
        )
    else:
        counts = samples.offsets.diff()
        origins, directions = (t.repeat_interleave(counts, 0) for t in (rays.origins, rays.directions))
    points = torch.addcmul(origins, samples.distances[..., None], directions)
    absorbs, color = field(points.reshape(-1, 3), directions.reshape(-1, 3))
    num = samples.distances.numel()
    if absorbs.shape != (num,) or color.dim() != 2 or len(color) != num:
        raise ShapeError(
            f"march: `field` should return {num} densities and rows of color for as many points, got "
            f"{describe_value(absorbs)} and {describe_value(color)}"
        )
    absorbs = absorbs.view(samples.distances.shape)
    color = color.view(*samples.distances.shape, color.shape[-1])
    offsets = samples.offsets
    if gives == "alpha":
        seen = composite_alphas(absorbs, color, samples.distances, offsets=offsets, stop_below=stop_below)
    else:
        seen = composite(
            absorbs, samples.lengths, color, samples.distances, offsets=offsets, stop_below=stop_below
        )
    assert seen.color is not None
    assert seen.distance is not None
    return seen.weights, seen.opacity, seen.transmittance, seen.color, seen.distance
