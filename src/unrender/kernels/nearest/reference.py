"""Nearest points, by the definition."""

import torch
from torch import Tensor


def forward(queries: Tensor, points: Tensor, k: int, norm: int) -> tuple[Tensor, Tensor]:
    """Find, for each query q, the k points p of smallest Σ|q − p|^norm, nearest first.

    Differentiable in: queries, points (through the distances). Memory is bounded: queries go in chunks.
    """
    chunk = max(1, 2**24 // max(1, points.shape[-2] * points.shape[-1]))
    with torch.no_grad():  # searched first, then picked: so that of all pairs none is kept for the gradient
        ids = torch.cat([_search(part, points, k, norm) for part in queries.split(chunk, dim=-2)], dim=-2)
    places = ids.flatten(-2)[..., None].expand(*ids.shape[:-2], -1, points.shape[-1])
    neighbors = points.gather(-2, places).unflatten(-2, ids.shape[-2:])
    return _powers(queries[..., :, None, :] - neighbors, norm), ids


def _search(queries: Tensor, points: Tensor, k: int, norm: int) -> Tensor:
    distances = _powers(queries[..., :, None, :] - points[..., None, :, :], norm)
    return distances.topk(k, dim=-1, largest=False, sorted=True).indices


def _powers(difference: Tensor, norm: int) -> Tensor:
    return (difference.abs() if norm == 1 else difference.square()).sum(-1)
