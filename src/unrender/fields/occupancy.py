"""Where in a field there can be something: a grid that remembers which places no ray ever saw."""

from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import max_pool3d

from unrender._checked import checked
from unrender.errors import InputError
from unrender.fields.protocol import FARTHEST, FieldSpace
from unrender.fields.uniform_samples import (
    EVEN_UP_TO,
    occupied_box,
    same_for_all,
    sample_bent,
    sample_contracted,
    sample_parts,
    sample_straight,
)
from unrender.geometry.rays import Rays, Stretch, clip_to_box
from unrender.kernels.walk_space import blocks_of, walk_space
from unrender.render.sample import RaySamples

STAY = 0.95
"""Of the occupied cells: if more would stay, all do."""


class OccupancyGrid(nn.Module):
    """Cells of a field's space, by x, y, z, that may hold something.

    Learning tells it which weights samples had; cells in which no weight was ever large, nor in a neighbour, are given
    up: empty ones, and those inside of things. What was given up does not come back.
    Source of the idea: Müller et al. 2022 (Instant-NGP), appendix E.2, there by density.
    """

    occupied: Bool[Tensor, "side side side"]
    seen: Float[Tensor, "side side side"]
    """The largest weight of a sample since cells were last given up."""
    box: Float[Tensor, "2 3"]
    """Around all occupied cells, where the cube is [−1, 1]³."""

    def __init__(self, occupied: Bool[Tensor, "side side side"]) -> None:
        super().__init__()
        if len(set(occupied.shape)) != 1:
            raise InputError(f"OccupancyGrid: should be a cube of cells, got {list(occupied.shape)}")
        self.register_buffer("occupied", occupied.clone())
        self.register_buffer("seen", torch.zeros(occupied.shape))
        self._remember(occupied)

    def _remember(self, occupied: Tensor) -> None:
        """Prepare what makes walks fast: blocks of cells, and the box around all that are occupied."""
        self.num_occupied = int(occupied.sum())
        self._blocks = blocks_of(occupied)
        self.box = occupied_box(occupied) * (2 / len(occupied)) - 1

    @property
    def side(self) -> int:
        """How many cells there are along each side."""
        return len(self.occupied)

    @torch.no_grad()
    def walk(
        self, rays: Rays, space: FieldSpace, step: float, near: float, jitter: Float[Tensor, " rays"]
    ) -> RaySamples:
        """Look along rays in occupied cells only, in steps of so many world units; see `walk_space`."""
        local = _local(rays, space)
        ends = (local.origins, local.directions, *self.stretch(rays, space, near), jitter)
        walk = walk_space(self.occupied, self._blocks, *ends, step=step, contracted=space.contracted)
        return RaySamples(*walk)

    def stretch(self, rays: Rays, space: FieldSpace, near: float) -> Stretch:
        """Return between which distances a row of rays may meet an occupied cell; contracted space ends far away."""
        if space.contracted:
            return same_for_all(rays, near, FARTHEST * space.half_side)
        begin, end = clip_to_box(_local(rays, space), *self.box)
        begin, end = (torch.where(end > begin, t, 0) for t in (begin, end))  # those that miss may be endless
        return Stretch(begin.clamp(min=near), end)

    def holds(self, places: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
        """Say which places in the unit cube lie in occupied cells; none does beyond the cube."""
        inside = ((places >= 0) & (places <= 1)).all(-1)
        cells = (places.detach().nan_to_num() * self.side).long().clamp_(0, self.side - 1)
        return self.occupied[cells.unbind(-1)] & inside

    @torch.no_grad()
    def look_evenly(
        self, rays: Rays, space: FieldSpace, count: int, near: float, given: Stretch | None = None
    ) -> RaySamples:
        """Cut the way of rays through the field, or what is given of it, into equal parts; see `KnowsWay`.

        In contracted space, parts of the whole way grow from three half sides on.
        """
        stretch = given or self.stretch(rays, space, near)
        if not space.contracted:
            low, cell = space.middle - space.half_side, 2 * space.half_side / self.side
            return sample_straight(rays, stretch, count, self.occupied, low, cell)
        places = (
            sample_bent(stretch, count, EVEN_UP_TO * space.half_side)
            if given is None
            else sample_parts(stretch, count)
        )
        return sample_contracted(
            rays, places, self.occupied, lambda points: space.into_cube(points) * self.side
        )

    @torch.no_grad()
    @checked
    def observe(self, places: Float[Tensor, "samples 3"], weights: Float[Tensor, " samples"]) -> None:
        """Remember the weights of samples at places in the unit cube."""
        cells = (places * self.side).long().clamp(0, self.side - 1)
        number = (cells[:, 0] * self.side + cells[:, 1]) * self.side + cells[:, 2]
        self.seen.view(-1).scatter_reduce_(0, number, weights.to(self.seen), "amax")

    @torch.no_grad()
    def give_up_unseen(self, least: float) -> None:
        """Give up cells where no weight was above `least` since the last time, nor in any neighbour."""
        stays = (self.seen > least).float()
        for size in ((3, 1, 1), (1, 3, 1), (1, 1, 3)):
            stays = max_pool3d(stays[None], size, 1, tuple(n // 2 for n in size))[0]
        self.seen.zero_()
        left = self.occupied & (stays > 0)
        if 0 < int(left.sum()) <= STAY * self.num_occupied:
            self.occupied = left
            self._remember(left)

    def split(self) -> Self:
        """Return a grid of cells half as wide, eight for each."""
        fine = self.occupied
        for axis in range(3):
            fine = fine.repeat_interleave(2, axis)
        return type(self)(fine)


def _local(rays: Rays, space: FieldSpace) -> Rays:
    """Return rays in the frame in which the cube is [−1, 1]³."""
    return Rays((rays.origins - space.middle) / space.half_side, rays.directions / space.half_side)
