"""Chamfer distance between point clouds, and point-to-mesh distance. Distances are squared unless noted."""

import functools
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.kernels.chamfer import is_fused, mean_chamfer
from unrender.kernels.closest_on_mesh import closest_on_mesh
from unrender.kernels.nearest import (
    Nearest,
    PointIndex,
    check_agreement,
    check_points,
    index_points,
    nearest,
    should_index,
)


class Chamfer(NamedTuple):
    """The terms of `chamfer_distance`; `normals` is None unless both point clouds have normals."""

    distance: Tensor
    normals: Tensor | None


@checked
def chamfer_distance(
    x: Float[Tensor, "*batch x dim"] | PointCloud | PointIndex,
    y: Float[Tensor, "*batch y dim"] | PointCloud | PointIndex,
    *,
    point_reduction: Literal["mean", "sum", "max", "none"] = "mean",
    batch_reduction: Literal["mean", "sum", "none"] = "mean",
    batch_weights: Float[Tensor, "*batch"] | None = None,
    norm: Literal[1, 2] = 2,
    single_directional: bool = False,
    abs_cosine: bool = True,
    huber: float | None = None,
    trim: float = 0.0,
) -> Chamfer:
    r"""Compute the Chamfer distance: mean over x of min_y Σ|x − y|^norm, plus the same from y to x.

    The second term compares the normals of nearest neighbors: 1 − \|cos\|, or 1 − cos without `abs_cosine`. Point
    clouds of different sizes in one batch have `lengths`; per-point `weights` give a weighted mean.

    For robustness to outliers, `huber` makes the squared distance linear beyond that distance (2·huber·d − huber²), and
    `trim` ignores that fraction of the pairs, the farthest ones. `point_reduction="none"` returns each term per point,
    those of x before those of y, without batch reduction; "max" gives the squared Hausdorff distance. Pass a
    `PointIndex` for a point cloud that is used repeatedly, as the target of an optimization is.

    Example: `loss = chamfer_distance(sample_points_from_mesh(mesh, 5000).points, cloud).distance`.

    Differentiable in: points, normals and weights of both point clouds. Source: Fan et al. 2017, eq. 1.
    """
    _check_options(point_reduction, batch_reduction, norm, huber, trim)
    a, b = _Side.of(x=x), _Side.of(y=y)
    check_agreement("chamfer_distance", x=a.points, y=b.points)
    is_large = should_index(a.points, b.points)
    if is_large:
        a, b = a.indexed(), b.indexed()
    is_mean = (
        point_reduction == batch_reduction == "mean" and batch_weights is None and not single_directional
    )
    is_plain = huber is None and trim == 0 and a.is_plain() and b.is_plain()
    if is_mean and is_plain and is_fused(a.points):
        return Chamfer(_mean_chamfer(a, b, norm, is_large), None)
    pairs = ((a, b),) if single_directional else ((a, b), (b, a))
    terms = [_one_direction(*pair, norm, point_reduction, abs_cosine, huber, trim) for pair in pairs]
    distances, cosines = [term[0] for term in terms], [term[1] for term in terms if term[1] is not None]
    if point_reduction == "none":
        return Chamfer(torch.cat(distances, -1), torch.cat(cosines, -1) if cosines else None)
    combine = torch.maximum if point_reduction == "max" else torch.add
    both = [functools.reduce(combine, terms) for terms in (distances, cosines) if terms]
    total = [_reduce_batch(terms, batch_weights, batch_reduction) for terms in both]
    return Chamfer(total[0], total[1] if cosines else None)


def _one_direction(
    source: "_Side",
    target: "_Side",
    norm: int,
    point_reduction: str,
    abs_cosine: bool,
    huber: float | None,
    trim: float,
) -> tuple[Tensor, Tensor | None]:
    """Reduce the distances of points to their nearest neighbors, and the angles between normals if both have them."""
    found = _nearest(source, target, norm)
    distance, weights = found.distances.squeeze(-1), source.all_weights()
    if huber is not None:
        distance = _huber(distance, huber)
    if trim > 0:
        weights = _without_farthest(weights, distance.detach(), trim)
    reduced = _reduce_points(distance, weights, point_reduction)
    if source.normals is None or target.normals is None:
        return reduced, None
    unlike = _normal_distance(source.normals, target.normals, found.ids, abs_cosine)
    return reduced, _reduce_points(unlike, weights, point_reduction)


def _check_options(
    point_reduction: str, batch_reduction: str, norm: int, huber: float | None, trim: float
) -> None:
    if not 0 <= trim < 1:
        raise InputError(f"chamfer_distance: `trim` should be a fraction, 0 ≤ trim < 1, got {trim}")
    if norm not in (1, 2):
        raise InputError(f"chamfer_distance: `norm` should be 1 or 2, got {norm}")
    if huber is not None and (norm != 2 or not huber > 0):
        raise InputError(
            f"chamfer_distance: `huber` should be a positive distance, with norm 2; got {huber} with norm {norm}"
        )
    if point_reduction not in ("mean", "sum", "max", "none") or batch_reduction not in (
        "mean",
        "sum",
        "none",
    ):
        raise InputError(
            "chamfer_distance: `point_reduction` should be 'mean', 'sum', 'max' or 'none', `batch_reduction` 'mean', "
            f"'sum' or 'none'; got {point_reduction!r} and {batch_reduction!r}"
        )


def _normal_distance(normals: Tensor, others: Tensor, ids: Tensor, abs_cosine: bool) -> Tensor:
    """Return 1 − cos of the angle between normals and those of the points with these ids."""
    nearest = others.gather(-2, ids.expand(*ids.shape[:-1], normals.shape[-1]))
    cosine = torch.cosine_similarity(normals, nearest, dim=-1, eps=1e-6)
    return 1 - (cosine.abs() if abs_cosine else cosine)


def _huber(squared: Tensor, bound: float) -> Tensor:
    """Continue squared distances linearly beyond a distance."""
    linear = 2 * bound * squared.clamp_min(bound**2).sqrt() - bound**2
    return torch.where(squared > bound**2, linear, squared)


@checked
def point_to_mesh_distance(
    points: Float[Tensor, "*batch points 3"] | PointIndex, mesh: Mesh
) -> Float[Tensor, "*batch points"]:
    """Compute the squared distance from each point to the surface of a mesh.

    Differentiable in: points, mesh.vertices.
    """
    return closest_on_mesh(points, mesh.vertices, mesh.faces).squared_distances


class _Side(NamedTuple):
    """One of the two point clouds; `tree` holds its index, built or not, unless sizes within the batch differ."""

    points: Tensor
    tree: PointIndex | None
    normals: Tensor | None = None
    weights: Tensor | None = None
    lengths: Tensor | None = None

    @classmethod
    def of(cls, **named: Tensor | PointCloud | PointIndex) -> "_Side":
        ((name, cloud),) = named.items()
        if isinstance(cloud, PointIndex):
            return cls(cloud.points, cloud)
        points = cloud if isinstance(cloud, Tensor) else cloud.points
        check_points("chamfer_distance", **{name: points})
        if isinstance(cloud, Tensor):
            return cls(points, PointIndex(points))
        if cloud.lengths is None:
            return cls(points, PointIndex(points), cloud.normals, cloud.weights)
        low, high = (int(x) for x in torch.aminmax(cloud.lengths))
        if low < 1 or high > points.shape[-2]:
            raise InputError(
                f"chamfer_distance: `{name}.lengths` should be 1 to {points.shape[-2]}, got {low} to {high}"
            )
        return cls(points, None, cloud.normals, cloud.weights, cloud.lengths)

    def indexed(self) -> "_Side":
        """Build the search tree, which is faster if both point clouds are large."""
        if self.tree is None or self.tree.ordered is not None:
            return self
        return self._replace(tree=index_points(self.points))

    def is_plain(self) -> bool:
        """Return whether there are points only, as many in each cloud of the batch."""
        return self.tree is not None and self.normals is self.weights is None and self.points.numel() > 0

    def all_weights(self) -> Tensor | None:
        """Return the weight of every point, 0 for padding; None where each has weight 1."""
        if self.lengths is None:
            return self.weights
        weights = torch.ones_like(self.points[..., 0]) if self.weights is None else self.weights
        index = torch.arange(weights.shape[-1], device=weights.device)
        return torch.where(index < self.lengths[..., None], weights, 0)

    def unpadded(self) -> list[Tensor]:
        """List the point clouds of a batch without padding."""
        flat = self.points.reshape(-1, *self.points.shape[-2:])
        if self.lengths is None:
            return list(flat)
        return [points[:length] for points, length in zip(flat, self.lengths.flatten().tolist(), strict=True)]


def _mean_chamfer(a: _Side, b: _Side, norm: int, is_large: bool) -> Tensor:
    """Compute the mean of both directions at once; between large point clouds, the neighbors are searched before."""
    if not is_large:
        return mean_chamfer(a.points, b.points, None, None, norm)
    with torch.no_grad():
        a_ids, b_ids = (_nearest(*sides, norm).ids for sides in ((a, b), (b, a)))
    return mean_chamfer(a.points, b.points, a_ids, b_ids, norm)


def _nearest(source: _Side, target: _Side, norm: int) -> Nearest:
    if source.tree is not None and target.tree is not None:
        return nearest(source.tree, target.tree, norm=norm)
    rows = source.points.shape[-2]
    found = [nearest(a, b, norm=norm) for a, b in zip(source.unpadded(), target.unpadded(), strict=True)]
    shape = (*source.points.shape[:-1], 1)
    return Nearest(
        *(
            torch.stack(
                [torch.nn.functional.pad(part, (0, 0, 0, rows - len(part))) for part in parts]
            ).reshape(shape)
            for parts in zip(*found, strict=True)
        )
    )


def _without_farthest(weights: Tensor | None, distance: Tensor, fraction: float) -> Tensor:
    """Return weights that are 0 for this fraction, rounded down, of the valid points: those farthest away."""
    weights = torch.ones_like(distance) if weights is None else weights
    valid = weights > 0
    rank = torch.where(valid, distance, torch.inf).argsort(dim=-1, stable=True).argsort(dim=-1)
    return weights * (rank < torch.ceil((1 - fraction) * valid.sum(-1, keepdim=True)))


def _reduce_points(values: Tensor, weights: Tensor | None, reduction: str) -> Tensor:
    if weights is None:
        return _reduce_equal(values, reduction)
    if reduction == "none":
        return values * weights
    if reduction == "max":
        return torch.where(weights > 0, values * weights, -torch.inf).amax(-1)
    total = (values * weights).sum(-1)
    return total if reduction == "sum" else total / weights.sum(-1).clamp_min(torch.finfo(weights.dtype).tiny)


def _reduce_equal(values: Tensor, reduction: str) -> Tensor:
    """Reduce points of weight 1."""
    if reduction == "none":
        return values
    if reduction == "max":
        return values.amax(-1)
    return values.sum(-1) if reduction == "sum" else values.mean(-1)


def _reduce_batch(values: Tensor, weights: Tensor | None, reduction: str) -> Tensor:
    weighted = values if weights is None else values * weights
    if reduction == "none" or (weights is None and weighted.dim() == 0):
        return weighted
    if reduction == "sum":
        return weighted.sum()
    if weights is None:
        return weighted.mean()
    return weighted.sum() / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)
