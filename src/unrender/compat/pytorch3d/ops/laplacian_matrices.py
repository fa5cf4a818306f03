"""Laplacians of meshes as sparse matrices."""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.geometry.topology import topology


def laplacian(verts: Tensor, edges: Tensor) -> Tensor:
    """Return the uniform Laplacian [V, V]: 1 / degree at neighbors, −1 on the diagonal."""
    size = len(verts)
    start, end = torch.cat([edges, edges.flip(1)]).unbind(1)
    degrees = torch.bincount(start, minlength=size).to(verts)
    loops = torch.arange(size, device=verts.device)
    index = torch.stack([torch.cat([start, loops]), torch.cat([end, loops])])
    return _sparse(index, torch.cat([1 / degrees[start], -torch.ones_like(degrees)]), size)


def cot_laplacian(verts: Tensor, faces: Tensor, eps: float = 1e-12) -> tuple[Tensor, Tensor]:
    """Return cot α + cot β at the edges [V, V], and the inverse area of the faces around each vertex [V, 1]."""
    size = len(verts)
    corners = verts[faces]
    opposite = (corners.roll(-1, 1) - corners.roll(-2, 1)).norm(dim=-1)  # the side opposite to each corner
    half = opposite.sum(1) / 2
    area = (half * (half[:, None] - opposite).prod(1)).clamp(min=eps).sqrt()
    squared = opposite.square()
    cotangents = (squared.sum(1, keepdim=True) - 2 * squared) / area[:, None] / 4
    start, end = (faces.roll(shift, 1).flatten() for shift in (-1, -2))
    index = torch.stack([torch.cat([start, end]), torch.cat([end, start])])
    weights = cotangents.flatten().repeat(2)
    areas = torch.zeros(size).to(verts).index_add(0, faces.flatten(), area.repeat_interleave(3))
    inverse = torch.where(areas > 0, 1 / areas.clamp(min=eps), areas)
    return _sparse(index, weights, size), inverse[:, None]


def norm_laplacian(verts: Tensor, edges: Tensor, eps: float = 1e-12) -> Tensor:
    """Return a matrix [V, V] with 1 / length at each edge."""
    start, end = edges.unbind(1)
    weights = 1 / ((verts[start] - verts[end]).norm(dim=1) + eps)
    index = torch.stack([torch.cat([start, end]), torch.cat([end, start])])
    return _sparse(index, weights.repeat(2), len(verts))


def edges_of(faces: Tensor) -> Tensor:
    """Return the unique edges of faces."""
    return topology(faces).edges


def _sparse(index: Tensor, values: Tensor, size: int) -> Tensor:
    return torch.sparse_coo_tensor(index, values, (size, size), check_invariants=False).coalesce()


__getattr__ = refuse_unknown(__name__)
