"""Normals and local frames of point clouds, from the covariance of neighbors."""

from typing import Any

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.ops.utils import convert_pointclouds_to_tensor, get_point_covariances


def estimate_pointcloud_normals(
    pointclouds: Any,
    neighborhood_size: int = 50,
    disambiguate_directions: bool = True,
    *,
    use_symeig_workaround: bool = True,
) -> Tensor:
    """Estimate the normals [N, P, 3]: the direction in which the neighbors of a point vary least.

    With `disambiguate_directions`, they point to the side where most of the neighbors are (Tombari et al. 2010).
    """
    _, frames = estimate_pointcloud_local_coord_frames(
        pointclouds, neighborhood_size, disambiguate_directions
    )
    return frames[..., 0]


def estimate_pointcloud_local_coord_frames(
    pointclouds: Any,
    neighborhood_size: int = 50,
    disambiguate_directions: bool = True,
    *,
    use_symeig_workaround: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the variances [N, P, 3] of the neighbors, ascending, and their directions, columns of [N, P, 3, 3]."""
    points, counts = convert_pointclouds_to_tensor(pointclouds)
    if points.shape[2] != 3:
        raise ValueError("The pointclouds argument has to be of shape (minibatch, N, 3)")
    if bool((counts <= neighborhood_size).any()):
        raise ValueError(
            "The neighborhood_size argument has to be smaller than the number of points of each cloud"
        )
    centroid = points.sum(1, keepdim=True) / counts[:, None, None].clamp(min=1)
    centered = points - centroid  # the covariance is of small numbers
    covariances, neighbors = get_point_covariances(centered, counts, neighborhood_size)
    variances, frames = torch.linalg.eigh(covariances)
    if disambiguate_directions:
        normals = _towards_neighbors(centered, neighbors, frames[..., 0])
        tangents = _towards_neighbors(centered, neighbors, frames[..., 2])
        frames = torch.stack([normals, torch.linalg.cross(normals, tangents), tangents], -1)
    return variances, frames


def _towards_neighbors(points: Tensor, neighbors: Tensor, directions: Tensor) -> Tensor:
    """Flip directions that fewer than half of the neighbors lie in."""
    along = ((neighbors - points[:, :, None]) * directions[:, :, None]).sum(-1)
    positive = (along > 0).sum(-1, keepdim=True)
    return torch.where(positive < 0.5 * neighbors.shape[2], -directions, directions)


__getattr__ = refuse_unknown(__name__)
