"""Selections of points by distance: farthest points, and neighbors within a radius."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.kernels.nearest import Nearest

CHUNK = 2**24
"""Number of distances that are computed at once."""


@checked
def farthest_points(
    points: Float[Tensor, "points dim"], count: int, *, start: int = 0
) -> Int[Tensor, " count"]:
    """Select points that cover the cloud: each is the farthest one from those before it (Eldar et al. 1997).

    Use it to thin a cloud evenly, where `voxel_downsample` fixes the spacing and this the number. Returns indices; at
    most as many as there are points. Ties are resolved in favor of the smaller index.

    Example: `cloud.points[farthest_points(cloud.points, 1000)]`.
    """
    if count < 0:
        raise InputError(f"farthest_points: `count` should be at least 0, got {count}")
    if len(points) and not 0 <= start < len(points):
        raise InputError(f"farthest_points: `start` should be 0 to {len(points) - 1}, got {start}")
    rows = points.detach()
    if not bool(rows.isfinite().all()):
        raise InputError(
            "farthest_points: `points` has values that are not finite; remove those points first"
        )
    columns = [column.contiguous() for column in rows.unbind(1)]
    count = min(count, len(rows))
    chosen = torch.empty(count, dtype=torch.int64, device=points.device)
    remaining = rows.new_full((len(rows),), torch.inf)
    latest = torch.full((1,), start, dtype=torch.int64, device=points.device)
    for i in range(count):
        chosen[i : i + 1] = latest
        squared = torch.zeros_like(remaining)
        for column in columns:
            squared.add_((column - column[latest]).square_())
        torch.minimum(remaining, squared, out=remaining)
        remaining[latest] = -1  # not again, not even where points coincide
        latest = remaining.argmax(0, keepdim=True)
    return chosen


@checked
def ball_query(
    queries: Float[Tensor, "queries dim"], points: Float[Tensor, "points dim"], radius: float, k: int
) -> Nearest:
    """Find up to k points within a radius of each query, those of smallest index, not the nearest (PointNet++, 2017).

    Returns squared distances and indices [queries, k] in ascending order; missing ones are 0 and −1.
    Differentiable in: queries and points, through the distances.
    """
    if not radius > 0 or k < 1:
        raise InputError(f"ball_query: `radius` should be positive and `k` at least 1, got {radius} and {k}")
    ids = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    found = min(k, len(points))
    if found and len(queries):
        index = torch.arange(len(points), device=points.device)
        step = max(CHUNK // len(points), 1)
        for begin in range(0, len(queries), step):
            squared = torch.zeros(len(queries[begin : begin + step]), len(points)).to(points)
            for a, b in zip(
                queries[begin : begin + step].detach().unbind(1), points.detach().unbind(1), strict=True
            ):
                squared += (a[:, None] - b).square()
            within = torch.where(squared < radius**2, index, len(points))
            first = within.topk(found, largest=False, sorted=True).values
            ids[begin : begin + step, :found] = first.masked_fill(first == len(points), -1)
    if not len(points):
        return Nearest(queries.new_zeros(ids.shape), ids)
    offsets = queries[:, None] - points[ids.clamp(min=0)]
    return Nearest(torch.where(ids >= 0, offsets.square().sum(-1), 0), ids)
