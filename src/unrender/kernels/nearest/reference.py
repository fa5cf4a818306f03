"""Reference implementation of nearest-neighbor search: brute force."""

import torch
from torch import Tensor


def forward(queries: Tensor, points: Tensor, k: int, norm: int) -> tuple[Tensor, Tensor]:
    """Find the k points p with the smallest Σ|q − p|^norm for each query q, nearest first.

    Differentiable in: queries, points (through the distances). Queries are processed in chunks to bound memory.
    """
    chunk = max(1, 2**24 // max(1, points.shape[-2] * points.shape[-1]))
    with torch.no_grad():  # gradients are computed for the selected pairs only, which saves memory
        ids = torch.cat([_search(part, points, k, norm) for part in queries.split(chunk, dim=-2)], dim=-2)
    indices = ids.flatten(-2)[..., None].expand(*ids.shape[:-2], -1, points.shape[-1])
    neighbors = points.gather(-2, indices).unflatten(-2, ids.shape[-2:])
    return _powers(queries[..., :, None, :] - neighbors, norm), ids


def _search(queries: Tensor, points: Tensor, k: int, norm: int) -> Tensor:
    distances = _powers(queries[..., :, None, :] - points[..., None, :, :], norm)
    return distances.topk(k, dim=-1, largest=False, sorted=True).indices


def _powers(difference: Tensor, norm: int) -> Tensor:
    return (difference.abs() if norm == 1 else difference.square()).sum(-1)
