"""Local surface estimates from the nearest neighbors of each point, and outlier detection."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender._checked import checked
from unrender._struct import TensorStruct
from unrender.kernels.nearest import index_points, nearest

MAX_FLATNESS = 0.15
"""A neighborhood is flat if its spread about the fitted plane is less than this fraction of its radius."""

MIN_SIMILARITY = 0.5
"""Minimum cosine of the angle between similar normals."""
MIN_SIMILAR = 8
"""Minimum number of neighbors with similar normals for a plane."""


class Neighborhoods(TensorStruct):
    """Estimates at each point of a point cloud that samples a surface."""

    normals: Float[Tensor, "points 3"]
    """Unit length, with arbitrary sign."""
    areas: Float[Tensor, " points"]
    """Surface area per point: π r² / m for the distance r of the m-th neighbor."""
    spread: Float[Tensor, " points"]
    """Root mean square distance of the neighbors from the fitted plane: noise plus the effect of curvature."""


@checked
def neighborhoods(points: Float[Tensor, "points 3"], num_neighbors: int = 24) -> Neighborhoods:
    """Fit a plane to the nearest neighbors of each point by PCA (Hoppe et al. 1992, section 3.2)."""
    index = index_points(points)
    k = min(num_neighbors, len(points) - 1)
    distances, ids = nearest(index, index, k=k + 1)
    offsets = points[ids] - points[ids].mean(1, keepdim=True)
    variances, axes = torch.linalg.eigh(offsets.mT @ offsets / (k + 1))
    m = max(1, k // 3)
    return Neighborhoods(
        normals=axes[..., 0],
        areas=torch.pi * distances[:, m] / m,
        spread=variances[:, 0].clamp_min(0).sqrt(),
    )


@checked
def one_sided_spread(
    points: Float[Tensor, "points 3"], normals: Float[Tensor, "points 3"], num_neighbors: int = 24
) -> Float[Tensor, " points"]:
    """Compute the spread of each point's neighbors about a plane, from those with a similar oriented normal.

    The neighbors on the other side of a thin part do not count. Points with few similar neighbors get NaN.
    """
    index = index_points(points)
    _, ids = nearest(index, index, k=min(num_neighbors, len(points) - 1) + 1)
    similar = ((normals[ids] * normals[:, None]).sum(-1) > MIN_SIMILARITY).to(points)[..., None]
    count = similar.sum(1, keepdim=True)
    offsets = similar * (points[ids] - (similar * points[ids]).sum(1, keepdim=True) / count)
    variances: Tensor = torch.linalg.eigvalsh(offsets.mT @ offsets / count)
    return variances[:, 0].clamp_min(0).sqrt().masked_fill(count[:, 0, 0] < MIN_SIMILAR, torch.nan)


@checked
def is_outlier(
    points: Float[Tensor, "points 3"], num_neighbors: int = 24, factor: float = 3.0
) -> Bool[Tensor, " points"]:
    """Mark points that are isolated, or off the surface that their neighbors sample.

    Isolated: the distance of the k/3-th neighbor exceeds `factor` times its median over the k neighbors or, unless the
    neighborhood is flat, over all points (a sparsely sampled region of a surface is flat). Off the surface: the median
    distance from the neighbors' planes exceeds both `factor` times the noise and the median neighbor distance.
    """
    index = index_points(points)
    k = min(num_neighbors, len(points) - 1)
    distances, ids = nearest(index, index, k=k + 1)
    local = neighborhoods(points, num_neighbors)
    reach = distances[:, max(1, k // 3)].sqrt()
    neighbors = ids[:, 1:]
    median, local_median = reach.median(), reach[neighbors].median(1).values
    is_flat = local.spread < MAX_FLATNESS * distances[:, -1].sqrt()
    is_isolated = (reach > factor * local_median) | ((reach > factor * median) & ~is_flat)
    heights = (
        ((points[:, None] - points[neighbors]) * local.normals[neighbors]).sum(-1).abs().median(1).values
    )
    tolerance = torch.maximum(factor * local.spread.median(), torch.where(is_flat, local_median, median))
    return is_isolated | (heights > tolerance)
