"""Reference implementation of the ray traversal of an occupancy grid."""

import torch
from torch import Tensor

from unrender.kernels.contraction import contract, contracted_steps
from unrender.kernels.traverse.cells import CellGrid


def forward(
    grid: CellGrid,
    origins: Tensor,
    directions: Tensor,
    t_near: Tensor,
    t_far: Tensor,
    steps: Tensor,
    jitter: Tensor,
    capacity: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return distances and lengths of the samples in occupied cells, and the offsets [rays + 1] of each ray.

    bounded:     t_i = t_near + i · step                          lengths_i = step
    contracted:  t_0 = t_near, t_i+1 = t_i + lengths_i            lengths_i = contracted_steps(t_i, step)
    Sample i lies at t_i + jitter · lengths_i. It is kept if that is before t_far, and its cell is occupied.
    """
    cells, contracted = grid.cells, grid.contracted
    local = ((origins - grid.center) / grid.half_extent, directions / grid.half_extent)
    found: list[list[Tensor]] = [[], [], []]
    t, i = t_near.clone(), 0
    can_end = (steps > 0) & (t_far - t_near).isfinite()
    while bool((going := can_end & (t < t_far)).any()):
        lengths = contracted_steps(*local, t, steps) if contracted else steps
        here = t + jitter * lengths if contracted else t_near + (i + jitter) * steps
        index = cell_of(*local, here, cells, contracted)
        inside = ((index >= 0) & (index < index.new_tensor(cells.shape))).all(-1)
        cell = torch.where(inside[:, None], index, 0).long()
        kept = going & inside & (here < t_far) & cells[cell.unbind(-1)]
        for values, more in zip(found, (here, lengths, torch.arange(len(t), device=t.device)), strict=True):
            values.append(more[kept])
        i += 1
        t = torch.where(going, t + lengths if contracted else t_near + i * steps, t)
    if not found[0]:
        found = [[t_near[:0]], [t_near[:0]], [torch.zeros(0, dtype=torch.int64, device=t.device)]]
    distances, lengths, rays = (torch.cat(values) for values in found)
    order = rays.argsort(stable=True)
    offsets = torch.cat([rays.new_zeros(1), torch.bincount(rays, minlength=len(t_near)).cumsum(0)])
    distances, lengths = distances[order], lengths[order]
    if capacity is not None:
        distances, lengths = (
            torch.cat([row, row.new_zeros(capacity)])[:capacity] for row in (distances, lengths)
        )
    return distances, lengths, offsets


def cell_of(origins: Tensor, directions: Tensor, t: Tensor, cells: Tensor, contracted: bool) -> Tensor:
    """Return the indices of the cells at distances t of rays, in the frame where the box is [−1, 1]³."""
    size = origins.new_tensor(cells.shape)
    if contracted:
        return ((contract(origins + t[:, None] * directions) + 2) * (size / 4)).floor()
    return ((origins + 1) * (size / 2) + t[:, None] * (directions * (size / 2))).floor()
