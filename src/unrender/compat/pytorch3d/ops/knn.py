"""Nearest neighbors in batches of point clouds."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.errors import InputError
from unrender.kernels.nearest import nearest


class _KNN(NamedTuple):
    """Squared distances (or distances, for norm 1), indices, and, if requested, the points themselves."""

    dists: Tensor
    idx: Tensor
    knn: Tensor | None


def knn_points(
    p1: Tensor,
    p2: Tensor,
    lengths1: Tensor | None = None,
    lengths2: Tensor | None = None,
    norm: int = 2,
    K: int = 1,
    version: int = -1,
    return_nn: bool = False,
    return_sorted: bool = True,
) -> _KNN:
    """Find the K points of p2 [N, P2, D] nearest to each of p1 [N, P1, D], nearest first.

    Beyond the lengths and the number of points, distances and indices are 0. `version` and
    `return_sorted` have no effect.
    """
    if norm not in (1, 2):
        raise InputError(f"knn_points: Support for 1 or 2 norm, got `norm` = {norm}")
    if p1.shape[0] != p2.shape[0] or p1.shape[2] != p2.shape[2]:
        raise InputError(
            f"knn_points: batch and dimension should agree, got {list(p1.shape)} and {list(p2.shape)}"
        )
    sizes = [
        [t.shape[1]] * len(t) if lengths is None else lengths.tolist()
        for t, lengths in ((p1, lengths1), (p2, lengths2))
    ]
    if not p1.numel():
        none = p1.new_zeros(*p1.shape[:2], K) + _zero(p1, p2)
        parts = [(none, none.long())]
    elif len(set(sizes[0])) == 1 == len(set(sizes[1])) and sizes[1][0] >= K:
        distances, ids = nearest(p1[:, : sizes[0][0]], p2[:, : sizes[1][0]], K, norm=norm)
        parts = [(distances, ids)]
    else:
        parts = [_of_one(a[:m], b[:n], K, norm) for a, b, m, n in zip(p1, p2, *sizes, strict=True)]
    rows = p1.shape[1]
    distances, ids = (
        torch.cat([_padded(part, rows) for part in column]) for column in zip(*parts, strict=True)
    )
    ids = ids.long()
    return _KNN(distances, ids, knn_gather(p2, ids, lengths2) if return_nn else None)


def _padded(part: Tensor, rows: int) -> Tensor:
    """Return the neighbors of one cloud or of several as [N, rows, K]."""
    clouds = part if part.dim() == 3 else part[None]
    return pad(clouds, (0, 0, 0, rows - clouds.shape[1]))


def _of_one(a: Tensor, b: Tensor, K: int, norm: int) -> tuple[Tensor, Tensor]:
    there = min(K, len(b))
    if there == 0:
        return a.new_zeros(len(a), K) + _zero(a, b), torch.zeros(
            len(a), K, dtype=torch.int64, device=a.device
        )
    found = nearest(a, b, there, norm=norm)
    return pad(found.distances, (0, K - there)), pad(found.ids, (0, K - there))


def _zero(*points: Tensor) -> Tensor:
    """Return 0 with gradients of 0."""
    return torch.cat([each[..., :0].flatten() for each in points]).sum()


def knn_gather(x: Tensor, idx: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Gather rows of x [N, M, U] by indices [N, L, K]: [N, L, K, U], 0 where a cloud has fewer than K points."""
    if x.dim() != 3 or idx.dim() != 3 or len(x) != len(idx):
        raise InputError(
            f"knn_gather: takes [N, M, U] and [N, L, K], got {list(x.shape)} and {list(idx.shape)}"
        )
    count, rows, neighbors = idx.shape
    if not x.shape[1] or not idx.numel():
        return x.new_zeros(*idx.shape, x.shape[2])
    taken = x.gather(1, idx.view(count, -1, 1).expand(-1, -1, x.shape[2])).view(count, rows, neighbors, -1)
    if lengths is None:
        return taken
    there = torch.arange(neighbors, device=x.device) < lengths[:, None]
    return taken * there[:, None, :, None]


__getattr__ = refuse_unknown(__name__)
