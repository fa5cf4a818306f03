"""Uniform samples: the centers of equal intervals of rays, without those in known empty space."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.rays import RayInterval, Rays
from unrender.geometry.scene_box import SceneBox
from unrender.kernels.traverse import CellGrid, traverse
from unrender.render.sample import RaySamples, sample_stratified, sample_uniform, samples_at

UNIFORM_UP_TO = 3.0
"""In contracted space: distance, in half extents of the box, beyond which intervals grow."""
RAYS_PER_CHUNK = 4096
"""Rays per chunk in contracted space: their samples stay in the caches of a processor."""


def check_interval(where: str, near: float | None, far: float | None) -> None:
    """Raise InputError for an empty interval or one with a single end; both may be None."""
    if near is None and far is None:
        return
    if near is None or far is None or not 0 <= near < far < math.inf:
        raise InputError(
            f"{where}: `near` and `far` should be distances with 0 ≤ near < far, got {near} and {far}"
        )


def constant_interval(rays: Rays, near: float, far: float) -> RayInterval:
    """Return the same interval for each of a row of rays; an empty one for invalid rays, whose direction is NaN."""
    t_far = torch.full_like(rays.origins[:, 0], far).masked_fill(rays.directions.isnan().any(-1), 0)
    return RayInterval(torch.full_like(t_far, near), t_far)


def uniform_samples(rays: Rays, near: float, far: float, num_samples: int) -> RaySamples:
    """Return the centers of equal intervals of each ray from `near` to `far`; none for invalid rays."""
    interval = constant_interval(rays, near, far)
    return flatten_samples(stratify(interval, num_samples), interval.t_far > interval.t_near)


def flatten_samples(samples: RaySamples, hits: Bool[Tensor, " rays"]) -> RaySamples:
    """Flatten the samples of rays, or of those that hit, to one row with offsets; rays that do not hit have none."""
    if len(samples.distances) == len(hits):
        samples = samples[hits]
    counts = hits * samples.distances.shape[-1]
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return RaySamples(samples.distances.flatten(), samples.lengths.flatten(), offsets)


def sample_interval(
    box: SceneBox, interval: RayInterval, num_samples: int, generator: torch.Generator | None
) -> tuple[RaySamples, Bool[Tensor, " rays"]]:
    """Divide the intervals that are not empty into bins; return one sample in each bin, and which rays have samples.

    Bins are equal or, in contracted space, grow from three half extents on. Samples lie at the centers of bins or,
    with a generator, at random within them.
    """
    hits = interval.t_far > interval.t_near
    interval = RayInterval(interval.t_near[hits], interval.t_far[hits])
    if not box.contracted:
        return stratify(interval, num_samples, generator), hits
    return stratify_inverse(interval, num_samples, UNIFORM_UP_TO * box.radius, generator), hits


def stratify(interval: RayInterval, num_samples: int, generator: torch.Generator | None = None) -> RaySamples:
    """Divide intervals into equal bins; samples lie at their centers, or at random with a generator."""
    if generator is None:
        return sample_uniform(*interval, num_samples)
    return sample_stratified(*interval, num_samples, generator=generator)


def stratify_inverse(
    interval: RayInterval,
    num_samples: int,
    uniform_up_to: Float[Tensor, ""] | float,
    generator: torch.Generator | None = None,
) -> RaySamples:
    """Divide intervals into bins that are uniform in t up to a distance, and uniform in 1 / t (disparity) beyond."""
    warped = stratify(
        RayInterval(*(_warp(t / uniform_up_to) for t in interval)), num_samples, generator
    ).distances
    return samples_at(_unwarp(warped) * uniform_up_to, *interval)


def _warp(t: Tensor) -> Tensor:
    """Map distances to [0, 2): t up to 1, then 2 − 1 / t."""
    return torch.where(t <= 1, t, 2 - 1 / t.clamp(min=1))


def _unwarp(warped: Tensor) -> Tensor:
    return torch.where(warped <= 1, warped, 1 / (2 - warped.clamp(min=1)))


def occupied_box(occupied: Bool[Tensor, "x y z"]) -> Int[Tensor, "2 3"]:
    """Return, along each axis, the first occupied cell and the one after the last; 0 and 0 if there is none."""
    ends = [occupied.any(0).any(0), occupied.any(0).any(1), occupied.any(1).any(1)][::-1]
    first = torch.stack([axis.int().argmax() for axis in ends])
    last = torch.stack([len(axis) - axis.flip(0).int().argmax() for axis in ends])
    return torch.stack([first, last * ends[0].any()])


def uniform_in_cells(
    rays: Rays, grid: CellGrid, box: SceneBox, interval: RayInterval, num_samples: int, *, is_given: bool
) -> RaySamples:
    """Divide intervals into bins, and keep the centers that lie in occupied cells of a grid that fills a box.

    Bins are equal or, in contracted space where the interval was not given, grow from three half extents on.
    """
    if num_samples < 1:
        raise InputError(f"sample_uniform: `num_samples` should be at least 1, got {num_samples}")
    if box.contracted:
        samples = (
            stratify(interval, num_samples)
            if is_given
            else stratify_inverse(interval, num_samples, UNIFORM_UP_TO * box.radius)
        )
        return _keep_occupied(rays, samples, grid, box)
    t_near, t_far = interval
    steps = (t_far - t_near) / num_samples
    hits = steps > 0
    ends = (t_near, torch.where(hits, t_far, t_near), torch.where(hits, steps, 1))
    return RaySamples(*traverse(grid, rays.origins, rays.directions, *ends, torch.full_like(steps, 0.5)))


def _keep_occupied(rays: Rays, samples: RaySamples, grid: CellGrid, box: SceneBox) -> RaySamples:
    """Keep the samples, equally many on each ray, that lie in occupied cells."""
    kept = samples.lengths > 0
    size = torch.tensor(grid.cells.shape, device=kept.device)
    for start in range(0, len(kept), RAYS_PER_CHUNK):
        chunk = slice(start, start + RAYS_PER_CHUNK)
        origins, directions = rays.origins[chunk, None], rays.directions[chunk, None]
        points = torch.addcmul(origins, samples.distances[chunk, :, None], directions)
        cells = (box.normalize(points) * size).nan_to_num().long()
        cells = torch.minimum(cells.clamp_(min=0), size - 1)
        kept[chunk] &= grid.cells[cells.unbind(-1)]
    offsets = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.sum(1).cumsum(0)])
    return RaySamples(samples.distances[kept], samples.lengths[kept], offsets)
