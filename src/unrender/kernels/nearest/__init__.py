"""Nearest points between clouds."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked, describe_value
from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.kernels._dispatch import implementation
from unrender.kernels.nearest import reference


class PointIndex(TensorStruct):
    """Points with a search tree over them, built once by `index_points` and used in any number of searches."""

    points: Float[Tensor, "*batch points dim"]
    ordered: Float[Tensor, "*batch points dim"] | None = None
    order: Int[Tensor, "*batch points"] | None = None
    boxes: Float[Tensor, "*batch nodes 2 dim"] | None = None


class Nearest(NamedTuple):
    """What `nearest` found: for each query its neighbours, nearest first."""

    distances: Float[Tensor, "*batch queries k"]
    ids: Int[Tensor, "*batch queries k"]


@checked
def index_points(points: Float[Tensor, "*batch points dim"]) -> PointIndex:
    """Build a search tree over `points`; where a device has no use for one, keep the points alone."""
    if points.shape[-2] == 0:
        raise InputError(f"index_points: `points` is empty: {describe_value(points)}")
    if not bool(torch.isfinite(points.detach()).all()):
        raise InputError("index_points: `points` holds NaN or infinite coordinates; drop those points first")
    fast = implementation("nearest", points.device)
    return PointIndex(points) if fast is None else PointIndex(points, *fast.build(points))


@checked
def nearest(
    queries: Float[Tensor, "*batch queries dim"] | PointIndex,
    points: Float[Tensor, "*batch points dim"] | PointIndex,
    k: int = 1,
    *,
    norm: int = 2,
) -> Nearest:
    """Find, for each query q, the k points p of smallest Σ|q − p|^norm: squared distance for norm 2.

    An index on either side (`index_points`) saves its building; indexed queries are also searched faster,
    in an order in which neighbours follow one another. Exact; equal distances go to the smaller id on a CPU.

    Differentiable in: queries, points, through the distances (not twice). At coincident points the gradient is 0.
    """
    query_index = queries if isinstance(queries, PointIndex) else None
    query_points = query_index.points if query_index else torch.as_tensor(queries)
    index = points if isinstance(points, PointIndex) else index_points(points)
    if query_points.shape[:-2] != index.points.shape[:-2] or query_points.shape[-1] != index.points.shape[-1]:
        raise InputError(
            f"nearest: batch and dimension should agree, got queries {describe_value(query_points)} "
            f"and points {describe_value(index.points)}"
        )
    if not 1 <= k <= index.points.shape[-2]:
        raise InputError(f"nearest: `k` should be 1 to {index.points.shape[-2]}, the number of points, got {k}")
    if norm not in (1, 2):
        raise InputError(f"nearest: `norm` should be 1 or 2, got {norm}")
    if query_index is None and not bool(torch.isfinite(query_points.detach()).all()):
        raise InputError("nearest: `queries` holds NaN or infinite coordinates; drop those points first")
    if index.ordered is None:
        return Nearest(*reference.forward(query_points, index.points, k, norm))
    if query_index is not None and query_index.order is not None:
        query_order = query_index.order
    else:
        query_order = torch.arange(query_points.shape[-2]).expand(query_points.shape[:-1])
    return Nearest(
        *_Nearest.apply(query_points, index.points, query_order, index.ordered, index.order, index.boxes, k, norm)
    )


class _Nearest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, points: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
        fast = implementation("nearest", queries.device)
        assert fast is not None
        distances, ids = fast.forward(queries, *arguments)
        ctx.save_for_backward(queries, points, ids)
        ctx.norm = arguments[-1]
        ctx.mark_non_differentiable(ids)
        return distances, ids

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        queries, points, ids = ctx.saved_tensors
        fast = implementation("nearest", queries.device)
        assert fast is not None
        gradients = fast.backward(queries, points, ids, cotangent, ctx.norm)
        return (*gradients, None, None, None, None, None, None)
