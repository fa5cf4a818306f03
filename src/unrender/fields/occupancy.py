"""Occupancy grid: in which cells of a scene box there can be something."""

from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import max_pool3d

from unrender._checked import checked
from unrender.errors import InputError
from unrender.fields.uniform_samples import (
    UNIFORM_UP_TO,
    constant_interval,
    keep_occupied,
    occupied_box,
    sample_straight,
    stratify,
    stratify_inverse,
)
from unrender.geometry.rays import RayInterval, Rays, clip_to_box
from unrender.geometry.scene_box import SceneBox
from unrender.kernels.walk_space import blocks_of, walk_space
from unrender.render.sample import RaySamples

MAX_KEPT = 0.95
"""Of the occupied cells: if pruning would keep more, it keeps all."""


class OccupancyGrid(nn.Module):
    """Cells of a scene box, by x, y, z, that may hold something.

    Training records the weights of samples; `prune` then empties cells in which no weight was large, nor in a neighbor:
    empty space, and the inside of solid objects. Pruned cells do not come back.
    Source of the idea: Müller et al. 2022 (Instant-NGP), appendix E.2, there by density.
    """

    occupied: Bool[Tensor, "side side side"]
    max_weight: Float[Tensor, "side side side"]
    """The largest weight of a sample since the last pruning."""
    occupied_bounds: Float[Tensor, "2 3"]
    """Around all occupied cells, where the grid is [−1, 1]³."""

    def __init__(self, occupied: Bool[Tensor, "side side side"]) -> None:
        super().__init__()
        if len(set(occupied.shape)) != 1:
            raise InputError(f"OccupancyGrid: should be a cube of cells, got {list(occupied.shape)}")
        self.register_buffer("occupied", occupied.clone())
        self.register_buffer("max_weight", torch.zeros(occupied.shape))
        self._update(occupied)

    def _update(self, occupied: Tensor) -> None:
        """Prepare what makes traversal fast: blocks of cells, and the box around all that are occupied."""
        self.num_occupied = int(occupied.sum())
        self._blocks = blocks_of(occupied)
        self.occupied_bounds = occupied_box(occupied) * (2 / len(occupied)) - 1

    @property
    def side(self) -> int:
        """How many cells there are along each side."""
        return len(self.occupied)

    @torch.no_grad()
    def sample(
        self, rays: Rays, box: SceneBox, step: float, near: float, jitter: Float[Tensor, " rays"]
    ) -> RaySamples:
        """Sample rays in occupied cells only, in steps of so many world units; see `walk_space`."""
        local = box.local_rays(rays)
        ends = (local.origins, local.directions, *self.intersect(rays, box, near), jitter)
        return RaySamples(
            *walk_space(self.occupied, self._blocks, *ends, step=step, contracted=box.contracted)
        )

    def intersect(self, rays: Rays, box: SceneBox, near: float) -> RayInterval:
        """Return between which distances a row of rays may meet an occupied cell."""
        if box.contracted:
            return box.intersect(rays, near)
        t_near, t_far = clip_to_box(box.local_rays(rays), *self.occupied_bounds)
        hits = t_far > t_near
        t_near, t_far = (torch.where(hits, t, 0) for t in (t_near, t_far))  # misses may be infinite
        return RayInterval(t_near.clamp(min=near), t_far)

    def contains(self, coordinates: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
        """Return which points, in the coordinates of the unit cube, lie in occupied cells."""
        inside = ((coordinates >= 0) & (coordinates <= 1)).all(-1)
        return self.occupied[self._cells(coordinates).unbind(-1)] & inside

    def _cells(self, coordinates: Tensor) -> Tensor:
        return (coordinates.detach().nan_to_num() * self.side).long().clamp_(0, self.side - 1)

    @torch.no_grad()
    def sample_uniform(
        self,
        rays: Rays,
        box: SceneBox,
        num_samples: int,
        *,
        first: float = 0.0,
        near: float | None = None,
        far: float | None = None,
    ) -> RaySamples:
        """Divide rays into equal intervals, and return the centers that lie in occupied cells.

        Intervals divide the ray within the occupied part of the box, from `first` on, or from `near` to `far`, where
        both are given. In contracted space, those of whole rays grow from three half extents on.
        """
        given = None if near is None or far is None else constant_interval(rays, near, far)
        interval = given or self.intersect(rays, box, first)
        if not box.contracted:
            low, cell = box.bounds[0], 2 * float(box.radius) / self.side
            return sample_straight(rays, interval, num_samples, self.occupied, low, cell)
        samples = (
            stratify_inverse(interval, num_samples, UNIFORM_UP_TO * box.radius)
            if given is None
            else stratify(interval, num_samples)
        )
        return keep_occupied(rays, samples, self.occupied, lambda points: box.normalize(points) * self.side)

    @torch.no_grad()
    @checked
    def record(self, coordinates: Float[Tensor, "samples 3"], weights: Float[Tensor, " samples"]) -> None:
        """Record the weights of samples, at points in the coordinates of the unit cube."""
        cells = self._cells(coordinates)
        number = (cells[:, 0] * self.side + cells[:, 1]) * self.side + cells[:, 2]
        self.max_weight.view(-1).scatter_reduce_(0, number, weights.to(self.max_weight), "amax")

    @torch.no_grad()
    def prune(self, min_weight: float) -> None:
        """Empty cells where no recorded weight was above `min_weight` since the last pruning, nor in a neighbor."""
        kept = (self.max_weight > min_weight).float()
        for size in ((3, 1, 1), (1, 3, 1), (1, 1, 3)):
            kept = max_pool3d(kept[None], size, 1, tuple(n // 2 for n in size))[0]
        self.max_weight.zero_()
        left = self.occupied & (kept > 0)
        if 0 < int(left.sum()) <= MAX_KEPT * self.num_occupied:
            self.occupied = left
            self._update(left)

    def split(self) -> Self:
        """Return a grid of cells half as wide, eight for each."""
        fine = self.occupied
        for axis in range(3):
            fine = fine.repeat_interleave(2, axis)
        return type(self)(fine)
