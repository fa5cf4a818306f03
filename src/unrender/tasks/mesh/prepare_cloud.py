"""Preprocessing of point clouds: validation, normalization, outlier removal and splitting."""

import logging
import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender._struct import TensorStruct
from unrender._wording import counted
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.neighborhoods import Neighborhoods, is_outlier, neighborhoods
from unrender.geometry.points import PointCloud

MIN_POINTS = 10
MIN_RELATIVE_EXTENT = 1e-5
"""A cloud thinner than this, relative to its largest extent, is planar (or linear)."""
FLAT_QUANTILE = 0.25
"""Quantile of the spread about fitted planes that measures noise alone, without the curvature of the surface."""
log = logging.getLogger("unrender")


class PreparedCloud(TensorStruct):
    """Points without outliers, normalized to a bounding box with the center at the origin and a diagonal of 1."""

    points: Float[Tensor, "points 3"]
    normals: Float[Tensor, "points 3"] | None
    local: Neighborhoods
    validation: Bool[Tensor, " points"]
    """Validation points, excluded from the fit to select the smoothness."""
    is_outlier: Bool[Tensor, " used"]
    used: Any
    """Indices of the points of the original cloud that are used; the others are held out, or exceed `max_points`."""
    held_out: Any
    """Indices of the points of the original cloud that are held out from the fit."""
    center: Float[Tensor, "3"]
    diagonal: float
    """Diagonal of the points' bounding box, in world units."""
    spacing: float
    """Mean distance between neighboring points on the surface, √(area / number)."""
    noise: float
    """Estimated standard deviation of the noise: the spread of the points where the surface is flat."""
    device: Any = torch.device("cpu")
    """Device of the original cloud: searches run there, everything else on the CPU."""

    def to_world(self, mesh: Mesh) -> Mesh:
        """Transform a mesh from the normalized frame to world units, on the device of the original cloud."""
        return mesh.replace(vertices=mesh.vertices * self.diagonal + self.center).to(self.device)


def prepare_cloud(cloud: PointCloud, holdout: float, max_points: int, seed: int) -> PreparedCloud:
    """Validate a cloud, hold out points, subsample, remove duplicates and outliers, and select validation points."""
    if cloud.points.dim() != 2:
        raise InputError(
            f"fit_mesh: `cloud` should be a single point cloud, got a batch of shape {list(cloud.points.shape)}"
        )
    points = cloud.points.detach().double().cpu()
    _check(points)
    low, high = points.amin(0), points.amax(0)
    center, diagonal = (low + high) / 2, float(np.linalg.norm(high - low))
    shuffled = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
    num_held_out = round(holdout * len(points))
    used = shuffled[num_held_out:][:max_points].sort().values
    if len(used) < len(points) - num_held_out:
        log.warning("fitting a random %d of %d points (max_points)", len(used), len(points) - num_held_out)
    used = used[_unique_points(points[used])]
    points = (points[used] - center) / diagonal
    _check(points)
    outlier = is_outlier(points)
    if bool(outlier.any()):
        log.info("ignoring %s among %d points", counted(int(outlier.sum()), "outlier"), len(points))
    points = points[~outlier]
    _check(points)
    points, center, diagonal = _unit_box(points, center, diagonal)
    local = neighborhoods(points)
    num_validation = min(max(len(points) // 10, 30), len(points) // 3)
    rank = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed + 1))
    return PreparedCloud(
        points=points,
        normals=_unit_normals(cloud, used[~outlier]),
        local=local,
        validation=rank < num_validation,
        is_outlier=outlier,
        used=used,
        held_out=shuffled[:num_held_out],
        center=center,
        diagonal=diagonal,
        spacing=math.sqrt(float(local.areas.numpy().mean())),
        noise=float(np.quantile(local.spread.numpy(), FLAT_QUANTILE)),
        device=cloud.points.device,
    )


def _unit_box(points: Tensor, center: Tensor, diagonal: float) -> tuple[Tensor, Tensor, float]:
    """Normalize again after the removal of outliers, which may dominate the bounding box."""
    low, high = points.amin(0), points.amax(0)
    size = float(np.linalg.norm(high - low))
    box_center = (low + high) / 2
    return (points - box_center) / size, center + diagonal * box_center, diagonal * size


def _unique_points(points: Tensor) -> Tensor:
    """Return the indices of unique points; many scanners write duplicates."""
    _, indices = np.unique(points.numpy(), axis=0, return_index=True)
    if len(indices) < len(points):
        num_duplicates = counted(len(points) - len(indices), "duplicate")
        log.info("ignoring %s among %d points", num_duplicates, len(points))
    return torch.from_numpy(np.sort(indices))


def _unit_normals(cloud: PointCloud, ids: Tensor) -> Tensor | None:
    """Return the normals of the cloud, unless some of them are invalid (zero, NaN)."""
    if cloud.normals is None:
        return None
    normals = cloud.normals.detach().double().cpu()[ids]
    lengths: Tensor = torch.linalg.vector_norm(normals, dim=1, keepdim=True)
    if not bool((lengths > 0).all()):
        log.warning("%d normals are zero or NaN; estimating all normals instead", int((~(lengths > 0)).sum()))
        return None
    return normals / lengths


def _check(points: Tensor) -> None:
    """Raise `InputError` unless points can lie on the surface of a solid."""
    bad = int((~torch.isfinite(points)).any(1).sum())
    if bad:
        raise InputError(f"fit_mesh: {bad} of {len(points)} points are NaN or infinite; remove them first")
    if len(points) < MIN_POINTS:
        raise InputError(f"fit_mesh: `cloud` should have at least {MIN_POINTS} points, got {len(points)}")
    offsets = points - points[:1]
    reach = float(offsets.abs().max())
    if reach == 0:
        raise InputError(f"fit_mesh: all {len(points)} points are equal, {points[0].tolist()}")
    extent = np.sqrt(np.linalg.eigvalsh(np.cov((offsets / reach).numpy().T)).clip(0))
    for thickness, shape in ((extent[1], "collinear"), (extent[0], "coplanar")):
        if thickness < MIN_RELATIVE_EXTENT * extent[2]:
            raise InputError(
                f"fit_mesh: all {len(points)} points are {shape}; a closed surface requires points around a solid"
            )
