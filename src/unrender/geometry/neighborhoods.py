"""What the neighbours of a point tell about the surface it was taken from."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender._checked import checked
from unrender._struct import TensorStruct
from unrender.kernels.nearest import index_points, nearest

FLAT = 0.15
"""Neighbours stray from the plane of a surface by less than this part of their distance."""


class Neighborhoods(TensorStruct):
    """Local estimates at each point of a cloud that samples a surface."""

    normals: Float[Tensor, "points 3"]
    """Unit, of either sign."""
    areas: Float[Tensor, " points"]
    """The share of the surface that each point stands for: π r² / m for the distance r of the m-th neighbour."""
    spread: Float[Tensor, " points"]
    """Root mean square distance of the neighbours from their plane: noise, and what curvature adds to it."""


@checked
def neighborhoods(points: Float[Tensor, "points 3"], num_neighbors: int = 24) -> Neighborhoods:
    """Fit a plane to the nearest neighbours of each point (principal components; Hoppe et al. 1992, section 3.2)."""
    index = index_points(points)
    k = min(num_neighbors, len(points) - 1)
    distances, ids = nearest(index, index, k=k + 1)
    offsets = points[ids] - points[ids].mean(1, keepdim=True)
    variances, axes = torch.linalg.eigh(offsets.mT @ offsets / (k + 1))
    middle = max(1, k // 3)
    return Neighborhoods(
        normals=axes[..., 0],
        areas=torch.pi * distances[:, middle] / middle,
        spread=variances[:, 0].clamp_min(0).sqrt(),
    )


@checked
def is_outlier(
    points: Float[Tensor, "points 3"], num_neighbors: int = 24, factor: float = 3.0
) -> Bool[Tensor, " points"]:
    """Mark points that are alone, or off the surface their neighbours lie on.

    Alone: the k/3-th neighbour is farther than `factor` times what is usual at the k neighbours, or than what is usual
    everywhere unless the neighbourhood is flat, as a sparse part of a surface is. Off the surface: the median distance
    from the planes of the neighbours exceeds `factor` times the noise, and the usual distance of neighbours.
    """
    index = index_points(points)
    k = min(num_neighbors, len(points) - 1)
    distances, ids = nearest(index, index, k=k + 1)
    local = neighborhoods(points, num_neighbors)
    reach = distances[:, max(1, k // 3)].sqrt()
    neighbors = ids[:, 1:]
    usual, usual_here = reach.median(), reach[neighbors].median(1).values
    is_flat = local.spread < FLAT * distances[:, -1].sqrt()
    is_alone = (reach > factor * usual_here) | ((reach > factor * usual) & ~is_flat)
    heights = (
        ((points[:, None] - points[neighbors]) * local.normals[neighbors]).sum(-1).abs().median(1).values
    )
    tolerated = torch.maximum(factor * local.spread.median(), torch.where(is_flat, usual_here, usual))
    return is_alone | (heights > tolerated)
