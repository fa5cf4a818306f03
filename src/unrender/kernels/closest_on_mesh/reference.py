"""Reference implementation of the closest point on a triangle mesh: brute force."""

import torch
from torch import Tensor


def forward(queries: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the surface point c with the smallest |q − c|² for each query q; return distance, face and barycentrics.

    On a triangle the closest point is the orthogonal projection if that is inside, else the closest point on its sides.
    Degenerate triangles are segments or points. Differentiable in: queries, vertices (through the distance, which is
    stationary in the barycentrics).
    """
    corners = vertices[..., faces, :]
    with torch.no_grad():  # gradients are computed for the selected pairs only, which saves memory
        chunks = queries.split(max(1, 2**20 // max(1, len(faces))), dim=-2)
        nearest, weights = zip(*(_search(chunk, corners) for chunk in chunks), strict=True)
        ids, barycentrics = torch.cat(nearest, -1), torch.cat(weights, -2)
    picked = corners.flatten(-2).gather(-2, ids[..., None].expand(*ids.shape, 9)).unflatten(-1, (3, 3))
    offset = queries - (barycentrics[..., None] * picked).sum(-2)
    return offset.square().sum(-1), ids, barycentrics


def _search(queries: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """Return the closest face [*batch queries] of each query, and the barycentrics of its closest point."""
    barycentric = _barycentric(queries, corners)
    points = (barycentric[..., None] * corners[..., None, :, :, :]).sum(-2)
    face = (queries[..., :, None, :] - points).square().sum(-1).argmin(-1)
    return face, barycentric.take_along_dim(face[..., None, None], dim=-2).squeeze(-2)


def _barycentric(queries: Tensor, corners: Tensor) -> Tensor:
    """Return the barycentrics [*batch queries faces 3] of the closest point on each triangle to each query."""
    a, b, c = corners[..., None, :, :, :].unbind(-2)
    q = queries[..., :, None, :]
    on_sides = []
    for start, end, ends in ((a, b, (0, 1)), (b, c, (1, 2)), (c, a, (2, 0))):
        side = end - start
        t = _divide(((q - start) * side).sum(-1), side.square().sum(-1)).clamp(0, 1)
        weights = [torch.zeros_like(t)] * 3
        weights[ends[0]], weights[ends[1]] = 1 - t, t
        on_sides.append(torch.stack(weights, -1))
    normal = torch.linalg.cross(b - a, c - a)
    v = _divide((torch.linalg.cross(q - a, c - a) * normal).sum(-1), normal.square().sum(-1))
    w = _divide((torch.linalg.cross(b - a, q - a) * normal).sum(-1), normal.square().sum(-1))
    inside = (v > 0) & (w > 0) & (v + w < 1)
    candidates = torch.stack(on_sides, -2)
    points = (candidates[..., None] * corners[..., None, :, None, :, :]).sum(-2)
    best = (q[..., None, :] - points).square().sum(-1).argmin(-1)
    side = candidates.take_along_dim(best[..., None, None], dim=-2).squeeze(-2)
    return torch.where(inside[..., None], torch.stack([1 - v - w, v, w], -1), side)


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / torch.where(denominator > 0, denominator, 1), 0)
