"""Preprocessing of the point cloud that a known shape is fitted to: validation, normalization, outliers and normals."""

from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from unrender._checked import describe_value
from unrender.errors import InputError, ShapeError
from unrender.geometry.landmarks import Landmarks
from unrender.geometry.neighborhoods import is_outlier, neighborhoods
from unrender.geometry.points import PointCloud

MIN_POINTS = 30
MIN_RELATIVE_EXTENT = 1e-4
"""A cloud thinner than this, relative to its largest extent, is linear."""
NUM_NEIGHBORS = 16
"""Neighbors for the estimation of normals."""


class ShapeTarget(NamedTuple):
    """Points without outliers, normalized to a robust center of 0 and a robust diagonal of 1, with normals."""

    points: Tensor
    normals: Tensor
    """Unit normals of an arbitrary sign: those of many files point inward, or are not oriented."""
    center: Tensor
    size: float
    """Diagonal of the box that holds 98 % of the points along each axis, in world units."""
    num_outliers: int
    device: Any = torch.device("cpu")

    def in_frame_of(self, other: Self) -> Self:
        """Return the points in the normalized frame of another target."""
        points = (self.points * self.size + (self.center - other.center)) / other.size
        return self._replace(points=points, center=other.center, size=other.size)

    def normalized(self, landmarks: Landmarks) -> Landmarks:
        """Convert landmarks from world units to the frame of the points."""
        points = (landmarks.points.double().cpu() - self.center) / self.size
        return Landmarks(landmarks.vertex_ids.cpu(), points)


def prepare_target(
    cloud: PointCloud, max_points: int, seed: int, task: str, *, remove_outliers: bool = True
) -> ShapeTarget:
    """Validate a cloud, subsample it, remove outliers, normalize it and estimate missing normals."""
    if not isinstance(cloud, PointCloud):
        raise ShapeError(f"{task}: `cloud` should be a PointCloud, got {describe_value(cloud)}")
    if cloud.points.dim() != 2:
        raise InputError(
            f"{task}: `cloud` should be a single point cloud, got a batch of shape {list(cloud.points.shape)}"
        )
    points = cloud.points.detach().double().cpu()
    bad = int((~points.isfinite()).any(1).sum())
    if bad:
        raise InputError(f"{task}: {bad} of {len(points)} points are NaN or infinite; remove them first")
    generator = torch.Generator().manual_seed(seed)
    used = torch.randperm(len(points), generator=generator)[:max_points].sort().values
    used = used[torch.from_numpy(np.sort(np.unique(points[used].numpy(), axis=0, return_index=True)[1]))]
    if len(used) < MIN_POINTS:
        raise InputError(
            f"{task}: `cloud` should have at least {MIN_POINTS} different points, got {len(used)}"
        )
    center = points[used].median(0).values
    points = points[used] - center
    outlier = is_outlier(points) if remove_outliers else torch.zeros(len(points), dtype=torch.bool)
    if len(points) - int(outlier.sum()) < MIN_POINTS:
        outlier[:] = False
    points, used = points[~outlier], used[~outlier]
    low, high = torch.from_numpy(np.quantile(points.numpy(), [0.01, 0.99], axis=0))
    size = float((high - low).norm())
    spread = np.sqrt(np.linalg.eigvalsh(np.cov(points.numpy().T)).clip(0))
    if not spread[1] > MIN_RELATIVE_EXTENT * spread[2] or not size > 0:
        raise InputError(f"{task}: nearly all points of `cloud` coincide or are collinear")
    middle = (low + high) / 2
    points = (points - middle) / size
    normals = _given_normals(cloud, used)
    estimated = neighborhoods(points, NUM_NEIGHBORS).normals if normals is None else normals
    return ShapeTarget(
        points,
        estimated,
        center + middle,
        size,
        int(outlier.sum()),
        cloud.points.device,
    )


def _given_normals(cloud: PointCloud, used: Tensor) -> Tensor | None:
    """Return the unit normals of the cloud, unless some of them are invalid."""
    if cloud.normals is None:
        return None
    normals = cloud.normals.detach().double().cpu()[used]
    lengths: Tensor = torch.linalg.vector_norm(normals, dim=1, keepdim=True)
    return normals / lengths if bool((lengths > 0).all()) else None
