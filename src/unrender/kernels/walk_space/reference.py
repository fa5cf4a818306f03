"""Walks through bounded or contracted space that skip what is empty, by the definition."""

import torch
from torch import Tensor

from unrender.kernels.contraction import contract, contracted_steps


def forward(
    occupied: Tensor,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    jitter: Tensor,
    step: float,
    contracted: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return where samples are, how long their steps, and [rays + 1] where those of each ray begin.

    From t on the next step is of length(t); its sample lies at t + jitter · length, and is kept if that is before far
    and its cell is occupied.
    """
    t = near.clone()
    found: list[list[Tensor]] = [[], [], []]
    while bool((going := t < far).any()):
        length = contracted_steps(origins, directions, t, step) if contracted else torch.full_like(t, step)
        here = t + jitter * length
        cells = cell_of(origins + here[:, None] * directions, occupied.shape[0], contracted)
        inside = ((cells >= 0) & (cells < occupied.shape[0])).all(-1)
        places = torch.where(inside[:, None], cells, 0).long()
        kept = going & inside & (here < far) & occupied[places.unbind(-1)]
        for values, more in zip(found, (here, length, torch.arange(len(t))), strict=True):
            values.append(more[kept])
        t = torch.where(going, t + length, t)
    if not found[0]:
        return near[:0], near[:0], torch.zeros(len(near) + 1, dtype=torch.int64)
    distances, lengths, rays = (torch.cat(values) for values in found)
    counts = torch.bincount(rays, minlength=len(near))
    order = rays.argsort(stable=True)
    return distances[order], lengths[order], torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def cell_of(points: Tensor, size: int, contracted: bool) -> Tensor:
    """Contract x to (2 − 1 / r) x / r where r = max |x| > 1; then the cube of side 2, or 4, is cut into cells."""
    if contracted:
        points = contract(points) / 2
    return ((points + 1) * (size / 2)).floor()
