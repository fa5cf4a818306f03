"""Mesh simplification by vertex clustering."""

import torch
from torch import Tensor

from unrender.geometry.mesh import Mesh


def cluster_vertices(mesh: Mesh, cells: int) -> Mesh:
    """Simplify a mesh by replacing the vertices in each grid cell with their mean.

    The grid has `cells` cells along the longest side of the mesh. Degenerate faces are removed; the topology may change
    (Rossignac and Borrel 1993).
    """
    low, high = mesh.vertices.aminmax(dim=0)
    corner = ((mesh.vertices - low) * (cells / (high - low).max())).long().clamp(max=cells - 1)
    x, y, z = corner.unbind(-1)
    _, cluster = ((x * cells + y) * cells + z).unique(return_inverse=True)
    faces = cluster[mesh.faces]
    a, b, c = faces.unbind(1)
    return Mesh(
        _mean(mesh.vertices, cluster),
        faces[(a != b) & (b != c) & (c != a)],
        None if mesh.vertex_colors is None else _mean(mesh.vertex_colors, cluster),
    )


def _mean(rows: Tensor, cluster: Tensor) -> Tensor:
    count = torch.bincount(cluster).to(rows)
    return rows.new_zeros(len(count), rows.shape[1]).index_add_(0, cluster, rows) / count[:, None]
