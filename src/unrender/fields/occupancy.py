"""Occupancy grid: the cells of a scene box that may have density."""

from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import max_pool3d

from unrender._checked import checked
from unrender.fields.uniform_samples import (
    constant_interval,
    occupied_box,
    uniform_in_cells,
)
from unrender.geometry.rays import RayInterval, Rays, clip_to_box
from unrender.geometry.scene_box import SceneBox
from unrender.kernels.traverse import CellGrid, blocks_of, traverse
from unrender.render.sample import RaySamples
from unrender.workers import current_workers

MAX_KEPT = 0.95
"""Fraction of the occupied cells: if pruning would keep more, it keeps all."""


class OccupancyGrid(nn.Module):
    """Cells of a scene box, by x, y, z, that may have density.

    Training records the weights of samples; `prune` then clears cells without a large weight in them or a neighbor:
    empty space, and the inside of solid objects. Pruned cells stay empty.
    Based on: Müller et al. 2022 (Instant-NGP), appendix E.2, which updates the grid by density instead.
    """

    occupied: Bool[Tensor, "x y z"]
    blocks: Bool[Tensor, "x_blocks y_blocks z_blocks"]
    """Blocks of cells, for faster traversal."""
    max_weight: Float[Tensor, "x y z"]
    """The largest weight of a sample since the last pruning."""
    occupied_bounds: Float[Tensor, "2 3"]
    """Corners of the box around all occupied cells, in coordinates in which the grid is [−1, 1]³."""

    def __init__(self, occupied: Bool[Tensor, "x y z"]) -> None:
        super().__init__()
        self.register_buffer("occupied", occupied.clone())
        self.register_buffer("max_weight", torch.zeros(occupied.shape, device=occupied.device))
        for name in ("blocks", "occupied_bounds"):
            self.register_buffer(name, None, persistent=False)
        self._update(occupied)

    def _update(self, occupied: Tensor) -> None:
        """Update the buffers that are derived from the cells."""
        self.num_occupied = int(occupied.sum())
        self.blocks = blocks_of(occupied)
        size = self.max_weight.new_tensor(occupied.shape)
        self.occupied_bounds = occupied_box(occupied).to(size) * (2 / size) - 1

    @property
    def shape(self) -> torch.Size:
        """Number of cells along each axis."""
        return self.occupied.shape

    def cells(self, box: SceneBox) -> CellGrid:
        """Return the cells and the box that they fill, as `traverse` takes them."""
        return CellGrid(self.occupied, self.blocks, box.center, box.half_extent, box.contracted)

    @torch.no_grad()
    def sample(
        self, rays: Rays, box: SceneBox, step: float, near: float, jitter: Float[Tensor, " rays"]
    ) -> RaySamples:
        """Sample rays in occupied cells only, at intervals of `step` world units; see `traverse`."""
        t_near, t_far = self.intersect(rays, box, near)
        steps = torch.full_like(t_near, step)
        return RaySamples(
            *traverse(self.cells(box), rays.origins, rays.directions, t_near, t_far, steps, jitter)
        )

    def intersect(self, rays: Rays, box: SceneBox, near: float) -> RayInterval:
        """Return the interval of each ray outside which it meets no occupied cell."""
        if box.contracted:
            return box.intersect(rays, near)
        t_near, t_far = clip_to_box(box.local_rays(rays), *self.occupied_bounds)
        hits = t_far > t_near
        t_near, t_far = (torch.where(hits, t, 0) for t in (t_near, t_far))  # misses may be infinite
        return RayInterval(t_near.clamp(min=near), t_far)

    def contains(self, coordinates: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
        """Return which points, in the coordinates of the unit cube, lie in occupied cells."""
        inside = ((coordinates >= 0) & (coordinates <= 1)).all(-1)
        return self.occupied[self._indices(coordinates)] & inside

    def _indices(self, coordinates: Tensor) -> tuple[Tensor, ...]:
        size = torch.tensor(self.shape, device=coordinates.device)
        cells = (coordinates.detach().nan_to_num() * size).long().clamp_(min=0)
        return torch.minimum(cells, size - 1).unbind(-1)

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
        return uniform_in_cells(rays, self.cells(box), box, interval, num_samples, is_given=given is not None)

    @torch.no_grad()
    @checked
    def record(self, coordinates: Float[Tensor, "samples 3"], weights: Float[Tensor, " samples"]) -> None:
        """Record the weights of samples, at points in the coordinates of the unit cube."""
        x, y, z = self._indices(coordinates)
        number = (x * self.shape[1] + y) * self.shape[2] + z
        self.max_weight.view(-1).scatter_reduce_(0, number, weights.to(self.max_weight), "amax")

    def combine_weights(self) -> None:
        """Record what other workers have recorded."""
        current_workers().maximum(self.max_weight)

    @torch.no_grad()
    def prune(self, min_weight: float) -> None:
        """Clear cells without a weight above `min_weight`, in them or a neighbor, since the last pruning."""
        self.combine_weights()
        kept = (self.max_weight > min_weight).float()
        for size in ((3, 1, 1), (1, 3, 1), (1, 1, 3)):
            kept = max_pool3d(kept[None], size, 1, tuple(n // 2 for n in size))[0]
        self.max_weight.zero_()
        remaining = self.occupied & (kept > 0)
        if 0 < int(remaining.sum()) <= MAX_KEPT * self.num_occupied:
            self.occupied = remaining
            self._update(remaining)

    def split(self) -> Self:
        """Return a grid of cells half as wide, eight for each."""
        fine = self.occupied
        for axis in range(3):
            fine = fine.repeat_interleave(2, axis)
        return type(self)(fine)
