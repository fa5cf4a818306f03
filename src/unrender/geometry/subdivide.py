"""Mesh subdivision."""

import torch
from torch import Tensor

from unrender.geometry.columns import as_columns, as_rows, gather_columns
from unrender.geometry.mesh import Mesh
from unrender.geometry.topology import topology


def subdivide(mesh: Mesh) -> Mesh:
    """Subdivide every face into four at the midpoints of its edges; vertex colors are interpolated.

    The original vertices come first, in their order.
    Differentiable in: vertices and colors.
    """
    edges = topology(mesh.faces)
    a, b, c = mesh.faces.unbind(1)
    ab, bc, ca = (edges.face_edges + mesh.vertices.shape[-2]).to(mesh.faces.dtype).unbind(1)
    faces = torch.stack([a, ab, ca, b, bc, ab, c, ca, bc, ab, bc, ca], 1).view(-1, 3)
    colors = None if mesh.vertex_colors is None else _with_midpoints(mesh.vertex_colors, edges.edges)
    return Mesh(_with_midpoints(mesh.vertices, edges.edges), faces, colors)


def _with_midpoints(rows: Tensor, edges: Tensor) -> Tensor:
    columns = as_columns(rows)
    midpoints = (gather_columns(columns, edges[:, 0]) + gather_columns(columns, edges[:, 1])) / 2
    return torch.cat([rows, as_rows(midpoints)], -2)
