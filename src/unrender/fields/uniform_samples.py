"""Even samples: the middles of equal parts of the way that a ray takes through a field, where that is not empty."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.rays import Rays, Stretch
from unrender.kernels.walk_grid import walk_grid
from unrender.render.sample import RaySamples, sample_stratified, sample_uniform, samples_at

EVEN_UP_TO = 3.0
"""In contracted space: half sides up to which steps along a ray are of the same length; beyond, they grow."""
RAYS_AT_ONCE = 4096
"""In contracted space: what is known of their samples stays in the caches of a processor."""


def check_ends(where: str, near: float | None, far: float | None) -> None:
    """Refuse distances between which there is nothing; both may be left out."""
    if near is None and far is None:
        return
    if near is None or far is None or not 0 <= near < far < math.inf:
        raise InputError(
            f"{where}: `near` and `far` should be distances with 0 ≤ near < far, got {near} and {far}"
        )


def same_for_all(rays: Rays, near: float, far: float) -> Stretch:
    """Return one stretch for each of a row of rays; an empty one for those of nan."""
    ends = torch.full_like(rays.origins[:, 0], far).masked_fill(rays.directions.isnan().any(-1), 0)
    return Stretch(torch.full_like(ends, near), ends)


def even_rows(rays: Rays, near: float, far: float, count: int) -> RaySamples:
    """Return the middles of equal parts of all rays, in one row; none of rays of nan."""
    stretch = same_for_all(rays, near, far)
    places, there = sample_parts(stretch, count), stretch.far > stretch.near
    offsets = torch.cat([there.new_zeros(1, dtype=torch.int64), (there * count).cumsum(0)])
    return RaySamples(places.distances[there].flatten(), places.lengths[there].flatten(), offsets)


def occupied_box(occupied: Bool[Tensor, "x y z"]) -> Int[Tensor, "2 3"]:
    """Return the first cells and those behind the last, along each axis, of all that are occupied; 0 for none."""
    ends = [occupied.any(0).any(0), occupied.any(0).any(1), occupied.any(1).any(1)][::-1]
    filled = [axis.nonzero()[:, 0] for axis in ends]
    return torch.tensor(
        [(int(axis[0]), int(axis[-1]) + 1) if len(axis) else (0, 0) for axis in filled]
    ).T.contiguous()


def sample_straight(
    rays: Rays, stretch: Stretch, count: int, occupied: Bool[Tensor, "x y z"], low: Tensor, cell: float
) -> RaySamples:
    """Cut stretches into equal parts, and keep the middles that lie in occupied cells.

    low: where the first cell begins, in the world; cell: its side, in world units.
    """
    if count < 1:
        raise InputError(f"sample_straight: `num_samples` should be at least 1, got {count}")
    near, far = stretch
    parts, counts = (far - near) / count, count * (far > near)
    origins, directions = ((rays.origins - low) / cell).flip(-1), (rays.directions / cell).flip(-1)
    distances, offsets = walk_grid(occupied, origins, directions, near, far, counts)
    return RaySamples(distances, parts.repeat_interleave(offsets.diff()), offsets)


def sample_contracted(
    rays: Rays,
    places: RaySamples,
    occupied: Bool[Tensor, "x y z"],
    into_cells: Callable[[Tensor], Tensor],
) -> RaySamples:
    """Keep those of as many places on each ray that lie in occupied cells of contracted space."""
    kept = places.lengths > 0
    for begin in range(0, len(kept), RAYS_AT_ONCE):
        part = slice(begin, begin + RAYS_AT_ONCE)
        origins, directions = rays.origins[part, None], rays.directions[part, None]
        cells = into_cells(torch.addcmul(origins, places.distances[part, :, None], directions))
        numbers = cells.nan_to_num().long().clamp_(0, len(occupied) - 1)
        kept[part] &= occupied[numbers.unbind(-1)]
    offsets = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.sum(1).cumsum(0)])
    return RaySamples(places.distances[kept], places.lengths[kept], offsets)


def sample_bent(
    stretch: Stretch, count: int, even: Float[Tensor, ""] | float, generator: torch.Generator | None = None
) -> RaySamples:
    """Cut stretches into parts that are equal up to the distance `even`, and grow with its square beyond.

    Places lie in the middle of their parts, or at random with a generator.
    """
    bent = sample_parts(Stretch(*(_bend(t / even) for t in stretch)), count, generator)
    return samples_at(_straighten(bent.distances) * even, *stretch)


def sample_parts(stretch: Stretch, count: int, generator: torch.Generator | None = None) -> RaySamples:
    """Cut stretches into equal parts, and look at their middles, or at random places of each with a generator."""
    if generator is None:
        return sample_uniform(*stretch, count)
    return sample_stratified(*stretch, count, generator=generator)


def _bend(distance: Tensor) -> Tensor:
    """Bring all distances into [0, 2): as they are up to 1, then 2 − 1 / distance."""
    return torch.where(distance <= 1, distance, 2 - 1 / distance.clamp(min=1))


def _straighten(bent: Tensor) -> Tensor:
    return torch.where(bent <= 1, bent, 1 / (2 - bent.clamp(min=1)))
