"""Chamfer distance of point clouds."""

from typing import Literal

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
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
    """Compute the distance of point clouds [N, P, 3] and, if both have normals, the distance of these.

    Without `point_reduction`, each is a pair: for the points of x, and, unless `single_directional`, of y.
    """
    if norm not in (1, 2):
        raise InputError(f"chamfer_distance: `norm` should be 1 or 2, got {norm}")
    if point_reduction is None and batch_reduction is not None:
        raise InputError("chamfer_distance: without `point_reduction`, `batch_reduction` should be None too")
    a, b = _cloud(x, x_lengths, x_normals), _cloud(y, y_lengths, y_normals)
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


def _cloud(points: Tensor | Pointclouds, lengths: Tensor | None, normals: Tensor | None) -> PointCloud:
    if isinstance(points, Pointclouds):
        return points.core()
    if points.dim() != 3:
        raise InputError(f"chamfer_distance: clouds should be [N, P, 3], got {list(points.shape)}")
    return PointCloud(points, normals, lengths=lengths)


__getattr__ = refuse_unknown(__name__)
