"""Mesh simplification by quadric error metrics, and by vertex clustering."""

import numpy as np
import torch
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.topology import keep_faces
from unrender.kernels.nearest import nearest

AGGRESSIVENESS = 5
"""How fast the error threshold grows from pass to pass: the middle of the library's range, for quality."""


def simplify_quadric(mesh: Mesh, num_faces: int) -> Mesh:
    """Simplify a mesh to `num_faces` faces by edge collapses of least quadric error (Garland and Heckbert 1997).

    Flat parts get larger triangles than curved ones. A closed manifold stays one, and boundaries stay in place. Vertex
    colors are those of the nearest vertex of the input. A mesh that is small enough is returned as it is.
    Requires `fast-simplification` (extra `surface`). Differentiable in: nothing.
    """
    if num_faces < 4:
        raise InputError(f"simplify_quadric: `num_faces` should be at least 4, got {num_faces}")
    if len(mesh.faces) <= num_faces:
        return mesh
    try:
        from fast_simplification import simplify
    except ImportError as error:
        raise InputError(
            "simplify_quadric: fast-simplification is not installed: pip install 'unrender[surface]'"
        ) from error
    points = mesh.vertices.detach().cpu()
    center = points.mean(0)  # the library computes in single precision
    arrays = (points - center).numpy().astype(np.float32), mesh.faces.cpu().numpy().astype(np.int32)
    vertices, faces = simplify(*arrays, target_count=num_faces, agg=AGGRESSIVENESS)
    found = Mesh(
        (torch.from_numpy(np.array(vertices)).to(center) + center).to(mesh.vertices),
        torch.from_numpy(np.array(faces)).to(mesh.faces),
    )
    found = _without_doublets(found)
    if mesh.vertex_colors is None:
        return found
    return found.replace(vertex_colors=mesh.vertex_colors[nearest(found.vertices, mesh.vertices).ids[:, 0]])


def _without_doublets(mesh: Mesh) -> Mesh:
    """Remove pairs of faces with the same vertices, back to back, and unreferenced vertices."""
    _, group, count = mesh.faces.sort(1).values.unique(dim=0, return_inverse=True, return_counts=True)
    return keep_faces(mesh, count[group] == 1)


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
