"""Walks through a grid that skip its empty voxels, by the definition."""

import torch
from torch import Tensor


def forward(
    occupied: Tensor, origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """Put `counts` samples on each ray, evenly between near and far, and keep those in voxels that are not empty.

    distance_i = near + (i + 1/2) (far − near) / count. `occupied` [depth, height, width]; rays are in its frame, where
    voxel [k, j, i] reaches from (i, j, k) to (i, j, k) + 1. Returns the distances, ray after ray, and [rays + 1] where
    those of each ray begin.
    """
    depth, height, width = occupied.shape
    number = torch.arange(int(counts.max()) if len(counts) else 0, device=counts.device)
    step = (far - near) / counts.clamp(min=1)
    distances = near[:, None] + (number.to(near) + 0.5) * step[:, None]
    x, y, z = (origins[:, None] + distances[..., None] * directions[:, None]).floor().unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (z >= 0) & (z < depth)
    kept = inside & (number < counts[:, None])
    places = (torch.where(kept, axis, 0).long() for axis in (z, y, x))
    kept = kept & occupied[tuple(places)]
    return distances[kept], torch.cat([counts.new_zeros(1), kept.sum(1).cumsum(0)])
