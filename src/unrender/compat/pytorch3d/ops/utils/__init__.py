"""Means, gathers and covariances of padded points."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.ops.knn import knn_points
from unrender.errors import InputError


def masked_gather(points: Tensor, idx: Tensor) -> Tensor:
    """Gather rows of points [N, P, D] by indices [N, K] or [N, M, K]; the index −1 gives zeros."""
    if len(idx) != len(points):
        raise InputError(
            f"masked_gather: points and idx must have the same batch dimension, got {len(points)} and {len(idx)}"
        )
    if idx.dim() not in (2, 3):
        raise InputError(
            f"masked_gather: idx format is not supported: takes [N, K] or [N, M, K], got {list(idx.shape)}"
        )
    if not points.shape[1]:
        return points.new_zeros(*idx.shape, points.shape[2])
    member = torch.arange(len(points), device=points.device).view(-1, *[1] * (idx.dim() - 1))
    return torch.where((idx >= 0)[..., None], points[member, idx.clamp(min=0)], 0)


def wmean(
    x: Tensor,
    weight: Tensor | None = None,
    dim: int | Sequence[int] = -2,
    keepdim: bool = True,
    eps: float = 1e-9,
) -> Tensor:
    """Average x over axes, by default that of points [..., P, D], with weights that lack the last axis."""
    axes = [dim] if isinstance(dim, int) else list(dim)
    if weight is None:
        return x.mean(axes, keepdim=keepdim)
    if any(a != b and a != 1 and b != 1 for a, b in zip(weight.shape[::-1], x.shape[-2::-1], strict=False)):
        raise InputError(f"wmean: weights are not compatible: {list(weight.shape)} with {list(x.shape)}")
    rows = weight[..., None]
    return (x * rows).sum(axes, keepdim=keepdim) / rows.sum(axes, keepdim=keepdim).clamp(eps)


def eyes(dim: int, N: int, device: Any = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return identity matrices [N, dim, dim]."""
    return torch.eye(dim, dtype=dtype, device=device).repeat(N, 1, 1)


def is_pointclouds(pcl: Any) -> bool:
    """Return whether a value is `Pointclouds`."""
    return hasattr(pcl, "points_padded") and hasattr(pcl, "num_points_per_cloud")


def convert_pointclouds_to_tensor(pcl: Any) -> tuple[Tensor, Tensor]:
    """Return points [N, P, D] and the number of valid ones [N], of clouds or of a tensor."""
    if is_pointclouds(pcl):
        return pcl.points_padded(), pcl.num_points_per_cloud()
    if isinstance(pcl, Tensor):
        return pcl, torch.full((len(pcl),), pcl.shape[1], dtype=torch.int64, device=pcl.device)
    raise InputError(f"takes Pointclouds or a tensor [N, P, D], got {type(pcl).__name__}")


def get_point_covariances(
    points_padded: Tensor, num_points_per_cloud: Tensor, neighborhood_size: int
) -> tuple[Tensor, Tensor]:
    """Return the covariance [N, P, D, D] of each point's nearest neighbors, and these [N, P, K, D]."""
    found = knn_points(
        points_padded,
        points_padded,
        num_points_per_cloud,
        num_points_per_cloud,
        K=neighborhood_size,
        return_nn=True,
    )
    assert found.knn is not None
    centered = found.knn - found.knn.mean(2, keepdim=True)
    return centered.mT @ centered / neighborhood_size, found.knn


__getattr__ = refuse_unknown(__name__)
