"""Where in a field there can be something: a grid that remembers which places no ray ever saw."""

from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import max_pool3d

from unrender._checked import checked
from unrender.errors import InputError
from unrender.fields.radiance_field import FARTHEST, FieldSpace
from unrender.geometry.rays import Rays, clip_to_box
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
        ends = [occupied.any(0).any(0), occupied.any(0).any(1), occupied.any(1).any(1)][::-1]
        filled = [axis.nonzero()[:, 0] for axis in ends]
        box = [(int(axis[0]), int(axis[-1]) + 1) if len(axis) else (0, 0) for axis in filled]
        self._box = torch.tensor(box).T * (2 / len(occupied)) - 1

    @property
    def side(self) -> int:
        """How many cells there are along each side."""
        return len(self.occupied)

    @torch.no_grad()
    def walk(
        self, rays: Rays, space: FieldSpace, step: float, near: float, jitter: Float[Tensor, " rays"]
    ) -> RaySamples:
        """Look along rays in occupied cells only, in steps of so many world units; see `walk_space`."""
        local = Rays((rays.origins - space.middle) / space.half_side, rays.directions / space.half_side)
        if space.contracted:
            far = torch.full_like(jitter, FARTHEST * space.half_side)
            begin, end = torch.full_like(far, near), far.masked_fill(rays.directions.isnan().any(-1), 0)
        else:
            begin, end = clip_to_box(local, *self._box)
            begin, end = (
                torch.where(end > begin, t, 0) for t in (begin, end)
            )  # those that miss may be endless
            begin = begin.clamp(min=near)
        ends = (local.origins, local.directions, begin, end, jitter)
        walk = walk_space(self.occupied, self._blocks, *ends, step=step, contracted=space.contracted)
        return RaySamples(*walk)

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
