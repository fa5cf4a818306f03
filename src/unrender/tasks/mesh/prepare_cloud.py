"""Preprocessing of point clouds: validation, normalization, outlier removal and splitting."""

import logging
import math
from typing import Any, Literal, NamedTuple

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
from unrender.geometry.voxel_means import voxel_means

Reduction = Literal["average", "random"]
MIN_POINTS = 10
MIN_RELATIVE_EXTENT = 1e-5
"""A cloud thinner than this, relative to its largest extent, is planar (or linear)."""
FLAT_QUANTILE = 0.25
"""Quantile of the spread about fitted planes that measures noise alone, without the curvature of the surface."""
MIN_MEAN_NORMAL, MAX_CANCELED = 0.4, 0.2
"""Normals cancel if the means of more than this fraction of the voxels are shorter than that."""
MAX_DUPLICATES = 0.4
"""Fraction of duplicates in a random sample above which they are removed before points are averaged."""
log = logging.getLogger("unrender")


class PreparedCloud(TensorStruct):
    """Points without outliers, normalized to a bounding box with the center at the origin and a diagonal of 1."""

    points: Float[Tensor, "points 3"]
    normals: Float[Tensor, "points 3"] | None
    weights: Float[Tensor, " points"]
    """Number of points of the original cloud that each point is the mean of."""
    local: Neighborhoods
    validation: Bool[Tensor, " points"]
    """Validation points, excluded from the fit to select the smoothness."""
    is_outlier: Bool[Tensor, " reduced"]
    """Which points, after the reduction, are outliers."""
    used: Any
    """Indices of the points of the original cloud that are used; the others are held out, duplicates, or left out of a
    random sample."""
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

    @property
    def num_averaged(self) -> int:
        """Number of points of the original cloud that were averaged in voxels; 0 if none were."""
        total = round(float(self.weights.sum()))
        return total if total > len(self.weights) else 0

    def to_world(self, mesh: Mesh) -> Mesh:
        """Transform a mesh from the normalized frame to world units, on the device of the original cloud."""
        return mesh.replace(vertices=mesh.vertices * self.diagonal + self.center).to(self.device)


def prepare_cloud(
    cloud: PointCloud, holdout: float, max_points: int, seed: int, reduction: Reduction = "average"
) -> PreparedCloud:
    """Validate a cloud, hold out points, reduce it to `max_points`, remove outliers, and select validation points."""
    if cloud.points.dim() != 2:
        raise InputError(
            f"fit_mesh: `cloud` should be a single point cloud, got a batch of shape {list(cloud.points.shape)}"
        )
    everything = cloud.points.detach().double().cpu()
    _check(everything)
    low, high = everything.amin(0), everything.amax(0)
    center, diagonal = (low + high) / 2, float(np.linalg.norm(high - low))
    shuffled = torch.randperm(len(everything), generator=torch.Generator().manual_seed(seed))
    num_held_out = round(holdout * len(everything))
    used = shuffled[num_held_out:]
    if reduction == "random":
        used = _random_points(used, max_points)
    may_repeat = len(used) <= max_points or _has_many_duplicates(everything[used[:max_points]])
    used = used.sort().values
    if may_repeat:
        used = used[_unique_points(everything[used])]
    points, normals = (everything[used] - center) / diagonal, _unit_normals(cloud, used)
    points, normals, weights, validation = _reduced(points, normals, max_points, seed + 1, diagonal)
    _check(points)
    outlier = is_outlier(points)
    if bool(outlier.any()):
        log.info("ignoring %s among %d points", counted(int(outlier.sum()), "outlier"), len(points))
    points, weights = points[~outlier], weights[~outlier]
    _check(points)
    points, center, diagonal = _unit_box(points, center, diagonal)
    local = neighborhoods(points)
    return PreparedCloud(
        points=points,
        normals=None if normals is None else normals[~outlier],
        weights=weights,
        local=local,
        validation=_validation_points(len(points), seed + 1, len(points))
        if validation is None
        else validation[~outlier],
        is_outlier=outlier,
        used=used,
        held_out=shuffled[:num_held_out],
        center=center,
        diagonal=diagonal,
        spacing=math.sqrt(float(local.areas.numpy().mean())),
        noise=float(np.quantile(local.spread.numpy(), FLAT_QUANTILE)),
        device=cloud.points.device,
    )


def _random_points(ids: Tensor, max_points: int) -> Tensor:
    """Return the first points of a random order, at most `max_points`."""
    if len(ids) > max_points:
        log.warning("fitting a random %d of %d points (max_points)", max_points, len(ids))
    return ids[:max_points]


class _Reduced(NamedTuple):
    """Points with the number of points that each is the mean of."""

    points: Tensor
    normals: Tensor | None
    weights: Tensor
    validation: Tensor | None
    """Validation points, which are not averaged; None if there are no means."""


def _reduced(points: Tensor, normals: Tensor | None, max_points: int, seed: int, diagonal: float) -> _Reduced:
    """Average points if there are more than `max_points`."""
    if len(points) <= max_points:
        return _Reduced(points, normals, torch.ones(len(points), dtype=torch.float64), None)
    validation = _validation_points(len(points), seed, max_points)
    return _averaged(points, normals, validation, max_points, diagonal)


def _validation_points(count: int, seed: int, num_used: int) -> Tensor:
    """Choose a tenth of the points used, more of very few."""
    rank = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return rank < min(max(num_used // 10, 30), num_used // 3)


def _averaged(
    points: Tensor, normals: Tensor | None, validation: Tensor, max_points: int, diagonal: float
) -> _Reduced:
    """Average points and normals over the voxels of a random sample without outliers, except for those of validation.

    The error of a mean is not independent of its neighbors', as the voxels share the noise of the surface between them:
    only single points can tell which surface is the likeliest.
    """
    rows = points if normals is None else torch.cat([points, normals], 1)
    averaged, single = rows[~validation], rows[validation]
    order = torch.randperm(len(averaged), generator=torch.Generator().manual_seed(0))
    sample = averaged[order[: max_points - len(single)], :3].contiguous()
    _check(sample)
    sample = sample[~is_outlier(sample)]
    _check(sample)
    means, counts, size = voxel_means(averaged.numpy(), sample.numpy())
    log.warning(
        "averaged %d of %d points to %d, in voxels of side %.3g (max_points); %d isolated ones are left out",
        int(counts.sum()) + len(single),
        len(points),
        len(means) + len(single),
        size * diagonal,
        len(averaged) - int(counts.sum()),
    )
    rows = torch.cat([torch.from_numpy(means), single])
    ones = torch.ones(len(single), dtype=torch.float64)
    weights = torch.cat([torch.from_numpy(counts).double(), ones])
    flags = torch.cat([torch.zeros(len(means), dtype=torch.bool), ones.bool()])
    vectors = None if normals is None else _mean_normals(rows[:, 3:])
    return _Reduced(rows[:, :3].contiguous(), vectors, weights, flags)


def _mean_normals(means: Tensor) -> Tensor | None:
    """Return unit normals from means of normals; None if they cancel, as where their signs are random."""
    lengths = means.norm(dim=1, keepdim=True)
    if float((lengths < MIN_MEAN_NORMAL).double().mean()) > MAX_CANCELED or not bool((lengths > 0).all()):
        log.warning(
            "normals of neighboring points point in opposite directions; estimating all normals instead"
        )
        return None
    unit: Tensor = means / lengths
    return unit


def _unit_box(points: Tensor, center: Tensor, diagonal: float) -> tuple[Tensor, Tensor, float]:
    """Normalize again after the removal of outliers, which may dominate the bounding box."""
    low, high = points.amin(0), points.amax(0)
    size = float(np.linalg.norm(high - low))
    box_center = (low + high) / 2
    return (points - box_center) / size, center + diagonal * box_center, diagonal * size


def _has_many_duplicates(sample: Tensor) -> bool:
    """Say whether a random sample of a cloud has so many duplicates that they decide its reduction."""
    return len(np.unique(sample.numpy(), axis=0)) < (1 - MAX_DUPLICATES) * len(sample)


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
