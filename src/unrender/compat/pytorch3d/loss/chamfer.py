"""Chamfer distance of point clouds."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.ops.knn import knn_gather, knn_points
from unrender.compat.pytorch3d.structures.pointclouds import Pointclouds
from unrender.errors import InputError
from unrender.geometry.points import PointCloud
from unrender.losses import chamfer

Loss = Tensor | tuple[Tensor, Tensor]


def chamfer_distance(
    x: Tensor | Pointclouds,
    y: Tensor | Pointclouds,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    x_normals: Tensor | None = None,
    y_normals: Tensor | None = None,
    weights: Tensor | None = None,
    batch_reduction: Literal["mean", "sum"] | None = "mean",
    point_reduction: Literal["mean", "sum", "max"] | None = "mean",
    norm: Literal[1, 2] = 2,
    single_directional: bool = False,
    abs_cosine: bool = True,
) -> tuple[Loss, Loss | None]:
    """Compute the distance of point clouds [N, P, D] and, if both have normals, the distance of these.

    Without `point_reduction`, each is a pair: for the points of x, and, unless `single_directional`, of y.
    """
    if norm not in (1, 2):
        raise InputError(f"chamfer_distance: Support for 1 or 2 norm, got `norm` = {norm}")
    for name, value, known in (
        ("batch_reduction", batch_reduction, ("mean", "sum")),
        ("point_reduction", point_reduction, ("mean", "sum", "max")),
    ):
        if value is not None and value not in known:
            raise InputError(f"chamfer_distance: {name} must be one of {known} or None, got {value!r}")
    if point_reduction is None and batch_reduction is not None:
        raise InputError("chamfer_distance: without `point_reduction`, `batch_reduction` should be None too")
    first, second = _tables("x", x, x_lengths, x_normals), _tables("y", y, y_lengths, y_normals)
    _check_agreement(first, second, weights)
    if first.is_usual() and second.is_usual():
        return _usual(
            first, second, weights, batch_reduction, point_reduction, norm, single_directional, abs_cosine
        )
    sides = [(first, second)] if single_directional else [(first, second), (second, first)]
    terms = [_one_direction(*pair, norm, abs_cosine, weights, point_reduction) for pair in sides]
    distances, angles = ([term[i] for term in terms] for i in (0, 1))
    total = max(len(first.points), 1) if weights is None else weights.sum().clamp(min=1e-12)
    return (
        _combine(distances, point_reduction, batch_reduction, total),
        None if angles[0] is None else _combine(angles, point_reduction, batch_reduction, total),
    )


class _Tables(NamedTuple):
    """Points [N, P, D] with lengths and normals."""

    points: Tensor
    lengths: Tensor | None
    normals: Tensor | None

    def is_usual(self) -> bool:
        """Return whether the points are in space, and no cloud is empty."""
        empty = self.points.shape[1] == 0 or (self.lengths is not None and bool((self.lengths < 1).any()))
        return self.points.shape[2] == 3 and len(self.points) > 0 and not empty

    def cloud(self) -> PointCloud:
        """Return the clouds as values of unrender."""
        return PointCloud(self.points, self.normals, lengths=self.lengths)


def _check_agreement(x: _Tables, y: _Tables, weights: Tensor | None) -> None:
    if len(x.points) != len(y.points) or x.points.shape[2] != y.points.shape[2]:
        raise InputError(
            f"chamfer_distance: batch and dimension should agree, got {list(x.points.shape)} and "
            f"{list(y.points.shape)}"
        )
    if weights is not None and (weights.shape != (len(x.points),) or not bool((weights >= 0).all())):
        raise InputError(
            f"chamfer_distance: `weights` should be ≥ 0, one for each of {len(x.points)} pairs of clouds"
        )


def _one_direction(
    x: _Tables,
    y: _Tables,
    norm: int,
    abs_cosine: bool,
    weights: Tensor | None,
    point_reduction: str | None,
) -> tuple[Tensor, Tensor | None]:
    """Reduce the distances of points of any dimension to their nearest neighbors, and the angles of the normals."""
    found = knn_points(x.points, y.points, x.lengths, y.lengths, norm=norm)
    size = x.points.shape[1]
    lengths = torch.full((len(x.points),), size).to(x.points.device) if x.lengths is None else x.lengths
    valid = torch.arange(size, device=x.points.device) < lengths[:, None]

    def reduce(values: Tensor) -> Tensor:
        values = torch.where(valid, values, 0)
        if weights is not None:
            values = values * weights[:, None]
        if point_reduction == "max":
            return values.amax(1) if size else values.sum(1)
        if point_reduction is None:
            return values
        return values.sum(1) / lengths.clamp(min=1) if point_reduction == "mean" else values.sum(1)

    angles = None
    if x.normals is not None and y.normals is not None:
        nearest = knn_gather(y.normals, found.idx, y.lengths)[:, :, 0]
        cosine = torch.cosine_similarity(x.normals, nearest, dim=-1, eps=1e-6)
        angles = reduce(1 - (cosine.abs() if abs_cosine else cosine))
    return reduce(found.dists[..., 0]), angles


def _combine(
    terms: list[Any], point_reduction: str | None, batch_reduction: str | None, total: Tensor | float
) -> Loss:
    """Combine both directions, and reduce over the batch."""
    if point_reduction is None:
        return terms[0] if len(terms) == 1 else (terms[0], terms[1])
    both: Tensor = terms[0]
    if len(terms) == 2:
        both = torch.maximum(*terms) if point_reduction == "max" else terms[0] + terms[1]
    if batch_reduction is None:
        return both
    return (
        both.sum() / (max(total, 1) if isinstance(total, int) else total)
        if batch_reduction == "mean"
        else both.sum()
    )


def _usual(
    first: _Tables,
    second: _Tables,
    weights: Tensor | None,
    batch_reduction: Literal["mean", "sum"] | None,
    point_reduction: Literal["mean", "sum", "max"] | None,
    norm: Literal[1, 2],
    single_directional: bool,
    abs_cosine: bool,
) -> tuple[Loss, Loss | None]:
    """Compute the distance of clouds in space by unrender."""
    a, b = first.cloud(), second.cloud()
    found = chamfer.chamfer_distance(
        a,
        b,
        point_reduction=point_reduction or "none",
        batch_reduction=batch_reduction or "none",
        batch_weights=None if weights is None else weights.to(a.points),
        norm=norm,
        single_directional=single_directional,
        abs_cosine=abs_cosine,
    )
    if point_reduction is not None:
        return found.distance, found.normals
    sizes = [a.points.shape[-2], b.points.shape[-2]]
    scale = torch.ones(len(a.points)).to(a.points) if weights is None else weights.to(a.points)

    def pair(values: Tensor) -> Loss:
        weighted = values * scale[:, None]
        if single_directional:
            return weighted
        first, second = weighted.split(sizes, -1)
        return first, second

    return pair(found.distance), None if found.normals is None else pair(found.normals)


def _tables(
    name: str, points: Tensor | Pointclouds, lengths: Tensor | None, normals: Tensor | None
) -> _Tables:
    if isinstance(points, Pointclouds):
        lengths = None if points.equisized else points.num_points_per_cloud()
        return _Tables(points.points_padded(), lengths, points.normals_padded())
    where = f"chamfer_distance: `{name}`"
    if not isinstance(points, Tensor):
        raise InputError(
            f"{where} should be Pointclouds objects or torch.Tensor [N, P, D], got {type(points).__name__}"
        )
    if points.dim() != 3:
        raise InputError(f"{where}: Expected points to be of shape (N, P, D), got {tuple(points.shape)}")
    if lengths is not None and (lengths.shape != (len(points),) or int(lengths.max()) > points.shape[1]):
        raise InputError(
            f"{where}: Expected lengths to be of shape ({len(points)},), at most {points.shape[1]} each"
        )
    if normals is not None and normals.shape != points.shape:
        raise InputError(
            f"{where}: Expected normals to be of shape {tuple(points.shape)}, got {tuple(normals.shape)}"
        )
    return _Tables(points, lengths, normals)


__getattr__ = refuse_unknown(__name__)
