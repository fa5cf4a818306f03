"""Samples along rays, and random pixels."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.camera import transform
from unrender.geometry.rays import Rays, clip_to_box
from unrender.kernels.composite import check_offsets
from unrender.kernels.traverse import CellGrid, traverse


class RaySamples(TensorStruct):
    """Samples along rays, nearest first: equally many on each ray or, with `offsets`, any number."""

    distances: Float[Tensor, "*batch samples"]
    lengths: Float[Tensor, "*batch samples"]
    """Length of the interval that a sample represents, in world units."""
    offsets: Int[Tensor, " bounds"] | None = None
    """If given, all samples are in one row: those of ray r are offsets[r] to offsets[r + 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.offsets is not None:
            check_offsets("RaySamples", self.offsets, self.distances)


@checked
def samples_at(
    distances: Float[Tensor, "*batch samples"],
    near: Float[Tensor, "*#batch"] | float,
    far: Float[Tensor, "*#batch"] | float,
) -> RaySamples:
    """Return samples at given distances, ascending, each representing the points of [near, far] nearest to it.

    Where far < near, lengths are 0. Differentiable in: distances, near, far.
    """
    near, far = (torch.as_tensor(t, dtype=distances.dtype, device=distances.device) for t in (near, far))
    midpoints = (distances[..., 1:] + distances[..., :-1]) / 2
    first, last = (t[..., None].expand(*distances.shape[:-1], 1) for t in (near, far))
    return RaySamples(distances, torch.cat([first, midpoints, last], -1).diff(dim=-1).clamp(min=0))


@checked
def sample_uniform(
    near: Float[Tensor, "*batch"] | float, far: Float[Tensor, "*batch"] | float, num_samples: int
) -> RaySamples:
    """Divide [near, far] of each ray into equal intervals, and return their centers.

    Where far < near, lengths are 0. Differentiable in: near, far.
    """
    return _in_intervals("sample_uniform", near, far, torch.full((), 0.5), num_samples)


@checked
def sample_stratified(
    near: Float[Tensor, "*batch"] | float,
    far: Float[Tensor, "*batch"] | float,
    num_samples: int,
    *,
    generator: torch.Generator | None = None,
) -> RaySamples:
    """Divide [near, far] of each ray into equal intervals, and return one random sample in each.

    Each sample represents the points nearest to it. Differentiable in: near, far.
    Source: NeRF (Mildenhall et al., 2020), eq. 2.
    """
    like = next((t for t in (near, far) if isinstance(t, Tensor)), torch.zeros(()))
    fractions = torch.rand(
        *torch.broadcast_shapes(*(t.shape for t in (near, far) if isinstance(t, Tensor))),
        num_samples,
        generator=generator,
        dtype=like.dtype,
        device=like.device if generator is None else generator.device,
    )
    samples = _in_intervals("sample_stratified", near, far, fractions, num_samples)
    return samples_at(samples.distances, near, far)


def _in_intervals(
    where: str, near: Tensor | float, far: Tensor | float, fractions: Tensor, num_samples: int
) -> RaySamples:
    """Return one sample in each of `num_samples` equal intervals, at a fraction of its length."""
    if num_samples < 1:
        raise InputError(f"{where}: `num_samples` should be at least 1, got {num_samples}")
    like = next((t for t in (near, far) if isinstance(t, Tensor)), torch.zeros(()))
    first, last = torch.broadcast_tensors(
        *(torch.as_tensor(t, dtype=like.dtype, device=like.device) for t in (near, far))
    )
    step = ((last - first).clamp(min=0) / num_samples)[..., None]
    positions = torch.arange(num_samples, dtype=like.dtype, device=like.device) + fractions.to(like)
    return RaySamples(first[..., None] + positions * step, step.expand(*step.shape[:-1], num_samples))


@checked
def sample_importance(
    samples: RaySamples,
    weights: Float[Tensor, "*batch samples"],
    num_samples: int,
    *,
    generator: torch.Generator | None = None,
    keeps_old: bool = True,
) -> RaySamples:
    """Sample where weights are large, by inverse transform sampling of their distribution along each ray.

    The weight of a sample is spread uniformly over its interval. New samples are at the quantiles
    (i + 1/2) / num_samples or, with a generator, at random between them. With `keeps_old` the old samples are merged
    with the new ones. A weight of 1e-5 is spread over the whole ray, so that empty rays are sampled uniformly.

    Differentiable in: nothing. Source: NeRF (Mildenhall et al., 2020), section 5.2.
    """
    if samples.offsets is not None or samples.distances.shape[-1] < 2 or num_samples < 1:
        raise InputError(
            "sample_importance: needs as many samples on each ray, at least 2, and at least 1 new one; got "
            + (f"{samples.distances.shape[-1]} and {num_samples}" if samples.offsets is None else "offsets")
        )
    distances, lengths = samples.distances.detach(), samples.lengths.detach()
    edges = _edges(distances, lengths)
    padding = 1e-5 / lengths.sum(-1, keepdim=True).clamp(min=torch.finfo(lengths.dtype).tiny)
    mass = weights.detach().clamp(min=0) + lengths * padding
    mass = torch.where(mass.sum(-1, keepdim=True) > 0, mass, 1)  # of rays without length
    reached = torch.cat([torch.zeros_like(mass[..., :1]), mass.cumsum(-1)], -1)
    steps = torch.arange(num_samples, dtype=mass.dtype, device=mass.device).expand(*mass.shape[:-1], -1)
    fractions = (
        0.5
        if generator is None
        else torch.rand(steps.shape, generator=generator, device=generator.device).to(mass)
    )
    wanted = (steps + fractions) / num_samples * reached[..., -1:]
    after = torch.searchsorted(reached, wanted, right=True).clamp(1, mass.shape[-1])
    start, end, left, right = (t.gather(-1, i) for t in (reached, edges) for i in (after - 1, after))
    part = ((wanted - start) / (end - start).clamp(min=torch.finfo(mass.dtype).tiny)).clamp(0, 1)
    drawn = left + part * (right - left)
    if keeps_old:
        drawn = torch.cat([distances, drawn], -1)
    return samples_at(drawn.sort(-1).values, edges[..., 0], edges[..., -1])


def _edges(distances: Tensor, lengths: Tensor) -> Tensor:
    """Return the bounds of the intervals that samples represent: the midpoints between them."""
    midpoints = (distances[..., 1:] + distances[..., :-1]) / 2
    return torch.cat(
        [midpoints[..., :1] - lengths[..., :1], midpoints, midpoints[..., -1:] + lengths[..., -1:]], -1
    )


@checked
def sample_occupied(
    rays: Rays,
    occupied: Bool[Tensor, "depth height width"],
    grid_from_world: Float[Tensor, "4 4"],
    step: float,
) -> RaySamples:
    """Sample rays where a grid is occupied, in equal steps of at most `step` world units.

    Voxel [k, j, i] spans (i, j, k) to (i, j, k) + 1 in the coordinate frame of the grid, as in `Volume`. Rays of all
    batch axes are flattened to one, and may have different numbers of samples.
    Differentiable in: nothing.
    """
    if not 0 < step < math.inf:
        raise InputError(f"sample_occupied: `step` should be a length > 0, got {step}")
    linear = grid_from_world.clone()
    linear[:3, 3] = 0
    inside = Rays(
        transform(grid_from_world, rays.origins.detach().reshape(-1, 3)),
        transform(linear, rays.directions.detach().reshape(-1, 3)),
    )
    size = grid_from_world.new_tensor(occupied.shape[::-1])
    near, far = clip_to_box(inside, torch.zeros_like(size), size)
    hits = far > near
    near, far = (torch.where(hits, t, 0) for t in (near, far))
    counts = ((far - near) / step).ceil().long()
    steps = torch.where(hits, (far - near) / counts.clamp(min=1), 1)
    grid = CellGrid.from_mask(occupied.permute(2, 1, 0), size / 2, size / 2)
    jitter = torch.full_like(steps, 0.5)
    return RaySamples(*traverse(grid, inside.origins, inside.directions, near, far, steps, jitter))


class Pixels(NamedTuple):
    """Pixels of several images."""

    views: Int[Tensor, " pixels"]
    rows: Int[Tensor, " pixels"]
    columns: Int[Tensor, " pixels"]

    @property
    def centers(self) -> Float[Tensor, "pixels 2"]:
        """X and y of their centers in the image."""
        return torch.stack([self.columns, self.rows], -1) + 0.5


def random_pixels(
    num_pixels: int,
    *,
    num_views: int = 1,
    height: int,
    width: int,
    generator: torch.Generator | None = None,
) -> Pixels:
    """Draw pixels uniformly from all views, with replacement.

    `rays_through(cameras[pixels.views], pixels.centers)` are their rays, and
    `images[pixels.views, pixels.rows, pixels.columns]` their colors.
    """
    if min(num_views, height, width) < 1:
        raise InputError(f"random_pixels: there are no pixels in {num_views} views of {height} × {width}")
    device = None if generator is None else generator.device
    number = torch.randint(num_views * height * width, (num_pixels,), generator=generator, device=device)
    return Pixels(number // (height * width), number // width % height, number % width)
