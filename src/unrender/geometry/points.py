"""Point clouds."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrender._struct import TensorStruct


class PointCloud(TensorStruct):
    """A point cloud in world units with optional per-point attributes, or a padded batch of point clouds."""

    points: Float[Tensor, "*batch points 3"]
    normals: Float[Tensor, "*batch points 3"] | None = None
    """Outward unit normals."""
    colors: Float[Tensor, "*batch points channels"] | None = None
    """In [0, 1]."""
    weights: Float[Tensor, "*batch points"] | None = None
    """Weight of each point in losses, ≥ 0."""
    lengths: Int[Tensor, "*batch"] | None = None
    """Number of valid points of each cloud in a batch; the rest is padding."""


def is_measured(points: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
    """Return which points are not exactly at the origin, where sensors put rays without a return.

    A single point there is a measurement, as are all if there is no other.
    """
    measured = (points != 0).any(-1)
    if len(points) - int(measured.sum()) < 2 or not bool(measured.any()):
        return torch.ones_like(measured)
    return measured
