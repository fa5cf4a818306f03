"""A cloud made ready for a fit: checked, scaled, and split into what is used for what."""

import logging
import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.neighborhoods import Neighborhoods, is_outlier, neighborhoods
from unrender.geometry.points import PointCloud

LEAST_POINTS = 10
FLAT = 1e-5
"""A cloud thinner than this, relative to its diagonal, lies in a plane (or on a line)."""
log = logging.getLogger("unrender")


class PreparedCloud(TensorStruct):
    """Points without outliers, centered and scaled so that their box has a diagonal of 1."""

    points: Float[Tensor, "points 3"]
    normals: Float[Tensor, "points 3"] | None
    local: Neighborhoods
    kept_back: Bool[Tensor, " points"]
    """Points that do not pull, but tell how smooth the surface should be."""
    is_outlier: Bool[Tensor, " used"]
    used: Any
    """Which points of the given cloud were used at all (the others are held out, or too many): ids."""
    held_out: Any
    """Ids of the points of the given cloud that the fit must not see."""
    center: Float[Tensor, "3"]
    diagonal: float
    """Of the points' box, in world units."""
    spacing: float
    """Mean distance between neighbouring points on the surface, √(area / number)."""

    def to_world(self, mesh: Mesh) -> Mesh:
        """Put a mesh where the cloud is."""
        return mesh.replace(vertices=mesh.vertices * self.diagonal + self.center)


def prepare_cloud(cloud: PointCloud, holdout: float, max_points: int, seed: int) -> PreparedCloud:
    """Check a cloud, hold points out, thin out, drop outliers, keep points back."""
    if cloud.points.dim() != 2:
        raise InputError(f"fit_mesh: one cloud at a time, got a batch of shape {list(cloud.points.shape)}")
    points = cloud.points.detach().double().cpu()
    _check(points)
    low, high = points.amin(0), points.amax(0)
    center, diagonal = (low + high) / 2, float(np.linalg.norm(high - low))
    shuffled = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
    num_held_out = round(holdout * len(points))
    used = shuffled[num_held_out:][:max_points].sort().values
    if len(used) < len(points) - num_held_out:
        log.warning("fitting a random %d of %d points (max_points)", len(used), len(points) - num_held_out)
    used = used[_first_of_equals(points[used])]
    points = (points[used] - center) / diagonal
    _check(points)
    outlier = is_outlier(points)
    if bool(outlier.any()):
        log.info("%d of %d points are outliers: they do not pull", int(outlier.sum()), len(points))
    points = points[~outlier]
    _check(points)
    points, center, diagonal = _unit_box(points, center, diagonal)
    local = neighborhoods(points)
    num_kept_back = min(max(len(points) // 10, 30), len(points) // 3)
    rank = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed + 1))
    return PreparedCloud(
        points=points,
        normals=_unit_normals(cloud, used[~outlier]),
        local=local,
        kept_back=rank < num_kept_back,
        is_outlier=outlier,
        used=used,
        held_out=shuffled[:num_held_out],
        center=center,
        diagonal=diagonal,
        spacing=math.sqrt(float(local.areas.numpy().mean())),
    )


def _unit_box(points: Tensor, center: Tensor, diagonal: float) -> tuple[Tensor, Tensor, float]:
    """Center and scale once more, without the outliers: one wild point would shrink all others."""
    low, high = points.amin(0), points.amax(0)
    size = float(np.linalg.norm(high - low))
    middle = (low + high) / 2
    return (points - middle) / size, center + diagonal * middle, diagonal * size


def _first_of_equals(points: Tensor) -> Tensor:
    """List the places of different points; many scanners write some points twice."""
    _, places = np.unique(points.numpy(), axis=0, return_index=True)
    if len(places) < len(points):
        log.info(
            "%d of %d points are repetitions: counting each once", len(points) - len(places), len(points)
        )
    return torch.from_numpy(np.sort(places))


def _unit_normals(cloud: PointCloud, ids: Tensor) -> Tensor | None:
    """Return the given normals, unless some of them are missing (zero, NaN)."""
    if cloud.normals is None:
        return None
    normals = cloud.normals.detach().double().cpu()[ids]
    lengths: Tensor = torch.linalg.vector_norm(normals, dim=1, keepdim=True)
    if not bool((lengths > 0).all()):
        log.warning("%d normals are zero or NaN: estimating all of them", int((~(lengths > 0)).sum()))
        return None
    return normals / lengths


def _check(points: Tensor) -> None:
    """Raise unless points may lie on the surface of a solid."""
    bad = int((~torch.isfinite(points)).any(1).sum())
    if bad:
        raise InputError(f"fit_mesh: {bad} of {len(points)} points are NaN or infinite; drop them first")
    if len(points) < LEAST_POINTS:
        raise InputError(f"fit_mesh: a surface needs at least {LEAST_POINTS} points, got {len(points)}")
    offsets = points - points[:1]
    reach = float(offsets.abs().max())
    if reach == 0:
        raise InputError(f"fit_mesh: all {len(points)} points are equal, {points[0].tolist()}")
    extent = np.sqrt(np.linalg.eigvalsh(np.cov((offsets / reach).numpy().T)).clip(0))
    for flat, where in ((extent[1], "on a line"), (extent[0], "in a plane")):
        if flat < FLAT * extent[2]:
            raise InputError(
                f"fit_mesh: all {len(points)} points lie {where}; a closed surface needs points all around a solid"
            )
