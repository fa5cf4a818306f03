"""Exact k-nearest-neighbor search between point clouds."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked, describe_value
from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.kernels._dispatch import can_read, implementation
from unrender.kernels.nearest import reference


class PointIndex(TensorStruct):
    """Points with a search tree, built once by `index_points` and used in any number of searches.

    After a move to another kind of device, searches build a new tree for each call.
    """

    points: Float[Tensor, "*batch points dim"]
    ordered: Float[Tensor, "*batch points axes"] | None = None
    order: Int[Tensor, "*batch points"] | None = None
    boxes: Float[Tensor, "*batch nodes 2 axes"] | None = None


class Nearest(NamedTuple):
    """The neighbors of each query, nearest first."""

    distances: Float[Tensor, "*batch queries k"]
    ids: Int[Tensor, "*batch queries k"]


@checked
def index_points(points: Float[Tensor, "*batch points dim"]) -> PointIndex:
    """Build a search tree over points, to be passed to `nearest` and to losses instead of the points.

    Use it if the same points are searched repeatedly. On devices without tree search, only the points are stored.
    """
    check_agreement("index_points", points=points)
    check_points("index_points", points=points)
    fast = implementation("nearest", points.device)
    return PointIndex(points) if fast is None else _build(fast, points)


def _build(fast: ModuleType, points: Tensor) -> PointIndex:
    return PointIndex(points, *fast.build(points))


@checked
def nearest(
    queries: Float[Tensor, "*batch queries dim"] | PointIndex,
    points: Float[Tensor, "*batch points dim"] | PointIndex,
    k: int = 1,
    *,
    norm: int = 2,
) -> Nearest:
    """Find the k nearest points p of each query q, with distances Σ|q − p|^norm: squared distances for norm 2.

    The search is exact; on a CPU, ties are resolved in favor of the smaller index. Pass a `PointIndex` (`index_points`)
    to reuse a search tree; indexed queries are also processed in a cache-friendly order.
    Raises InputError for an empty point cloud, or coordinates that are not finite.

    Differentiable in: queries, points, through the distances (not twice). At coincident points the gradient is 0.
    """
    query_points, query_order = (
        (queries.points, queries.order) if isinstance(queries, PointIndex) else (queries, None)
    )
    found = points.points if isinstance(points, PointIndex) else points
    check_agreement("nearest", queries=query_points, points=found)
    if found.shape[-2] > 0 and not 1 <= k <= found.shape[-2]:
        raise InputError(f"nearest: `k` should be 1 to {found.shape[-2]}, the number of points, got {k}")
    if norm not in (1, 2):
        raise InputError(f"nearest: `norm` should be 1 or 2, got {norm}")
    if query_points is queries:
        check_finite("nearest", queries=query_points)
    if not isinstance(points, PointIndex):
        check_points("nearest", points=found)
    fast = implementation("nearest", found.device)
    if fast is None:
        return Nearest(*reference.forward(query_points, found, k, norm))
    index = points if isinstance(points, PointIndex) and _has_tree(points, fast) else None
    if k == 1 and fast.compares_all(query_points.shape[-2], found.shape[-2], index is not None):
        return Nearest(
            *_Nearest.apply(
                fast, lambda: fast.compare_all(query_points, found, norm), query_points, found, norm
            )
        )
    tree = _build(fast, found) if index is None else index
    order = given_order(query_points) if query_order is None else query_order
    arguments = (order, tree.ordered, tree.order, tree.boxes, k, norm)
    return Nearest(
        *_Nearest.apply(fast, lambda: fast.forward(query_points, *arguments), query_points, found, norm)
    )


def _has_tree(index: PointIndex, fast: ModuleType) -> bool:
    """Return whether an index has a tree of the given implementation."""
    count = index.points.shape[-2]
    return index.boxes is not None and index.boxes.shape[-3] == fast.num_nodes(count)


def should_index(x: Tensor, y: Tensor) -> bool:
    """Return whether building trees is faster for point clouds that are each searched for the other's points."""
    fast = implementation("nearest", x.device)
    sizes = x.shape[-2], y.shape[-2]
    return fast is not None and not any(
        fast.compares_all(num_queries, num_points, True) for num_queries, num_points in (sizes, sizes[::-1])
    )


def given_order(points: Tensor) -> Tensor:
    """Return the identity permutation of points."""
    return torch.arange(points.shape[-2], device=points.device).expand(points.shape[:-1])


def check_points(where: str, **points: Tensor) -> None:
    """Raise `InputError` for empty point clouds and non-finite coordinates."""
    for name, tensor in points.items():
        if tensor.shape[-2] == 0:
            raise InputError(
                f"{where}: `{name}` should have at least one point, got {describe_value(tensor)}"
            )
    check_finite(where, **points)


def check_finite(where: str, **points: Tensor) -> None:
    """Raise `InputError` for non-finite coordinates. On a GPU, to avoid a synchronization, their distances are NaN."""
    for name, tensor in points.items():
        if can_read(tensor) and not bool(torch.isfinite(tensor.detach()).all()):
            raise InputError(f"{where}: `{name}` has NaN or infinite coordinates; remove these points first")


def check_agreement(where: str, **points: Tensor) -> None:
    """Raise `InputError` unless point clouds agree in batch shape, dimension, device and (supported) dtype."""
    kinds = {(t.shape[:-2], t.shape[-1], t.device, t.dtype) for t in points.values()}
    if len(kinds) == 1 and next(iter(points.values())).dtype in (torch.float32, torch.float64):
        return
    got = " and ".join(
        f"`{name}` {describe_value(tensor)} on {tensor.device}" for name, tensor in points.items()
    )
    raise InputError(
        f"{where}: batch shape, dimension, device and dtype (float32 or float64) should agree, got {got}"
    )


class _Nearest(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        fast: ModuleType,
        search: Callable[[], tuple[Tensor, Tensor]],
        queries: Tensor,
        points: Tensor,
        norm: int,
    ) -> tuple[Tensor, Tensor]:
        distances, ids = search()
        ctx.save_for_backward(queries, points, ids)
        ctx.fast, ctx.norm = fast, norm
        ctx.mark_non_differentiable(ids)
        return distances, ids

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.fast.backward(*ctx.saved_tensors, grad_output, ctx.norm, ctx.needs_input_grad[3])
        return (None, None, *gradients, None)
