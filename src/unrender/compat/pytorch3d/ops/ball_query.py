"""Neighbors within a radius, in batches of clouds."""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.ops.knn import _KNN
from unrender.compat.pytorch3d.ops.utils import masked_gather
from unrender.errors import InputError
from unrender.geometry import neighbor_search


def ball_query(
    p1: Tensor,
    p2: Tensor,
    lengths1: Tensor | None = None,
    lengths2: Tensor | None = None,
    K: int = 500,
    radius: float = 0.2,
    return_nn: bool = True,
    skip_points_outside_cube: bool = False,
) -> _KNN:
    """Find the first K points of p2 [N, P2, D] within a radius of each of p1 [N, P1, D]; missing indices are −1."""
    if p1.shape[0] != p2.shape[0] or p1.shape[2] != p2.shape[2]:
        raise InputError(
            f"ball_query: batch and dimension should agree, got {list(p1.shape)} and {list(p2.shape)}"
        )
    first, second = (
        [t.shape[1]] * len(t) if n is None else n.tolist() for t, n in ((p1, lengths1), (p2, lengths2))
    )
    distances, ids = [], []
    for a, b, m, n in zip(p1, p2, first, second, strict=True):
        found = neighbor_search.ball_query(a[:m], b[:n], radius, K)
        rest = (0, 0, 0, len(a) - m)
        distances.append(torch.nn.functional.pad(found.distances, rest))
        ids.append(torch.nn.functional.pad(found.ids, rest, value=-1))
    index = torch.stack(ids) if ids else p1.new_zeros(0, p1.shape[1], K, dtype=torch.int64)
    squared = torch.stack(distances) if distances else p1.new_zeros(0, p1.shape[1], K)
    return _KNN(squared, index, masked_gather(p2, index) if return_nn else None)


__getattr__ = refuse_unknown(__name__)
