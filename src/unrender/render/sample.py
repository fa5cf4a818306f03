"""Where to look along rays, and which pixels to look through."""

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
    """Places along rays, nearest first: as many on each ray or, with `offsets`, as many as there are."""

    distances: Float[Tensor, "*batch samples"]
    lengths: Float[Tensor, "*batch samples"]
    """How long the part of the ray is for which the sample stands, in world units."""
    offsets: Int[Tensor, " bounds"] | None = None
    """Then all samples are in one row: those of ray r are offsets[r] to offsets[r + 1]."""

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
    """Let each distance, in rising order, stand for the part of the stretch that is nearest to it.

    Where far < near there is nothing, and lengths are 0. Differentiable in: distances, near, far.
    """
    near, far = (torch.as_tensor(t, dtype=distances.dtype, device=distances.device) for t in (near, far))
    middles = (distances[..., 1:] + distances[..., :-1]) / 2
    first, last = (t[..., None].expand(*distances.shape[:-1], 1) for t in (near, far))
    return RaySamples(distances, torch.cat([first, middles, last], -1).diff(dim=-1).clamp(min=0))


@checked
def sample_uniform(
    near: Float[Tensor, "*batch"] | float, far: Float[Tensor, "*batch"] | float, num_samples: int
) -> RaySamples:
    """Cut the stretch of each ray into equal parts, and look at their middles.

    Where far < near there is nothing, and lengths are 0. Differentiable in: near, far.
    """
    return _in_parts("sample_uniform", near, far, torch.full((), 0.5), num_samples)


@checked
def sample_stratified(
    near: Float[Tensor, "*batch"] | float,
    far: Float[Tensor, "*batch"] | float,
    num_samples: int,
    *,
    generator: torch.Generator | None = None,
) -> RaySamples:
    """Cut the stretch of each ray into equal parts, and look at one place in each, at random.

    Lengths are those of what is nearest to each place. Differentiable in: near, far.
    Source: NeRF (Mildenhall et al., 2020), eq. 2.
    """
    like = next((t for t in (near, far) if isinstance(t, Tensor)), torch.zeros(()))
    shares = torch.rand(
        *torch.broadcast_shapes(*(t.shape for t in (near, far) if isinstance(t, Tensor))),
        num_samples,
        generator=generator,
        dtype=like.dtype,
    )
    samples = _in_parts("sample_stratified", near, far, shares, num_samples)
    return samples_at(samples.distances, near, far)


def _in_parts(
    where: str, near: Tensor | float, far: Tensor | float, shares: Tensor, num_samples: int
) -> RaySamples:
    """Place one sample in each of equal parts, at its share of the way through it."""
    if num_samples < 1:
        raise InputError(f"{where}: `num_samples` should be at least 1, got {num_samples}")
    like = next((t for t in (near, far) if isinstance(t, Tensor)), torch.zeros(()))
    first, last = torch.broadcast_tensors(
        *(torch.as_tensor(t, dtype=like.dtype, device=like.device) for t in (near, far))
    )
    step = ((last - first).clamp(min=0) / num_samples)[..., None]
    places = torch.arange(num_samples, dtype=like.dtype, device=like.device) + shares.to(like)
    return RaySamples(first[..., None] + places * step, step.expand(*step.shape[:-1], num_samples))


@checked
def sample_importance(
    samples: RaySamples,
    weights: Float[Tensor, "*batch samples"],
    num_samples: int,
    *,
    generator: torch.Generator | None = None,
    keeps_old: bool = True,
) -> RaySamples:
    """Look where the weights say that there is something to see: invert their distribution along each ray.

    The weight of a sample is spread evenly over its part of the ray. New places are at the quantiles
    (i + 1/2) / num_samples or, with a generator, at random in each of the parts between. With `keeps_old` the old
    places stay among the new ones. A weight of 1e-5 is spread over the whole ray, so that one that saw nothing is
    sampled evenly.

    Differentiable in: nothing. Source: NeRF (Mildenhall et al., 2020), section 5.2.
    """
    if samples.offsets is not None or samples.distances.shape[-1] < 2 or num_samples < 1:
        raise InputError(
            "sample_importance: needs as many samples on each ray, at least 2, and at least 1 new one; got "
            + (f"{samples.distances.shape[-1]} and {num_samples}" if samples.offsets is None else "offsets")
        )
    distances, lengths = samples.distances.detach(), samples.lengths.detach()
    edges = _edges(distances, lengths)
    least = 1e-5 / lengths.sum(-1, keepdim=True).clamp(min=torch.finfo(lengths.dtype).tiny)
    mass = weights.detach().clamp(min=0) + lengths * least
    mass = torch.where(mass.sum(-1, keepdim=True) > 0, mass, 1)  # of rays without length
    reached = torch.cat([torch.zeros_like(mass[..., :1]), mass.cumsum(-1)], -1)
    steps = torch.arange(num_samples, dtype=mass.dtype, device=mass.device).expand(*mass.shape[:-1], -1)
    shares = 0.5 if generator is None else torch.rand(steps.shape, generator=generator).to(mass)
    wanted = (steps + shares) / num_samples * reached[..., -1:]
    after = torch.searchsorted(reached, wanted, right=True).clamp(1, mass.shape[-1])
    start, end, left, right = (t.gather(-1, i) for t in (reached, edges) for i in (after - 1, after))
    part = ((wanted - start) / (end - start).clamp(min=torch.finfo(mass.dtype).tiny)).clamp(0, 1)
    places = left + part * (right - left)
    if keeps_old:
        places = torch.cat([distances, places], -1)
    return samples_at(places.sort(-1).values, edges[..., 0], edges[..., -1])


def _edges(distances: Tensor, lengths: Tensor) -> Tensor:
    """Return the ends of the parts for which samples stand: half-way between them."""
    middles = (distances[..., 1:] + distances[..., :-1]) / 2
    return torch.cat(
        [middles[..., :1] - lengths[..., :1], middles, middles[..., -1:] + lengths[..., -1:]], -1
    )


@checked
def sample_occupied(
    rays: Rays,
    occupied: Bool[Tensor, "depth height width"],
    grid_from_world: Float[Tensor, "4 4"],
    step: float,
) -> RaySamples:
    """Look only where a grid is occupied, in equal parts of about `step` world units, and no longer.

    Voxel [k, j, i] reaches from (i, j, k) to (i, j, k) + 1 in the frame of the grid, which is that of `Volume`. Rays,
    in all their axes one after another, may have different numbers of samples.
    Differentiable in: nothing.
    """
    if not 0 < step < math.inf:
        raise InputError(f"sample_occupied: `step` should be a length > 0, got {step}")
    turn = grid_from_world.clone()
    turn[:3, 3] = 0
    inside = Rays(
        transform(grid_from_world, rays.origins.detach().reshape(-1, 3)),
        transform(turn, rays.directions.detach().reshape(-1, 3)),
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
    """Pixels of several pictures."""

    views: Int[Tensor, " pixels"]
    rows: Int[Tensor, " pixels"]
    columns: Int[Tensor, " pixels"]

    @property
    def centers(self) -> Float[Tensor, "pixels 2"]:
        """Where they are in the picture, x and y."""
        return torch.stack([self.columns, self.rows], -1) + 0.5


def random_pixels(
    num_pixels: int,
    *,
    num_views: int = 1,
    height: int,
    width: int,
    generator: torch.Generator | None = None,
) -> Pixels:
    """Choose pixels at random, of all views alike; some may come twice.

    `rays_through(cameras[pixels.views], pixels.centers)` looks through them, and
    `images[pixels.views, pixels.rows, pixels.columns]` is what is seen there.
    """
    if min(num_views, height, width) < 1:
        raise InputError(f"random_pixels: there are no pixels in {num_views} views of {height} × {width}")
    number = torch.randint(num_views * height * width, (num_pixels,), generator=generator)
    return Pixels(number // (height * width), number // width % height, number % width)
