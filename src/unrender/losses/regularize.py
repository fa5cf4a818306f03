"""Mesh regularizers: edge length, Laplacian smoothing and normal consistency, averaged over a batch."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.columns import as_columns, cross, dot, edge_vectors, mean, norm, scatter_sum
from unrender.geometry.mesh import Mesh, corners
from unrender.geometry.topology import topology
from unrender.kernels.edge_loss import edge_loss
from unrender.kernels.normal_consistency import normal_consistency
from unrender.kernels.uniform_laplacian import uniform_laplacian_loss


def mesh_edge_loss(mesh: Mesh, target_length: float = 0.0) -> Float[Tensor, ""]:
    """Compute the mean of (length − `target_length`)² over all edges, in squared world units.

    Differentiable in: the vertices (gradient zero at an edge of length zero).
    """
    return edge_loss(mesh.vertices, topology(mesh.faces).edges, target_length)


def mesh_normal_consistency(mesh: Mesh) -> Float[Tensor, ""]:
    """Compute the mean of 1 − cos of the angle between the normals of adjacent faces.

    The result does not depend on the winding of the faces; pairs with a degenerate face contribute 1.
    Differentiable in: the vertices (gradient zero at degenerate faces).
    """
    found = topology(mesh.faces)
    return normal_consistency(mesh.vertices, mesh.faces, found.hinge_faces, found.hinge_signs)


def mesh_laplacian_smoothing(
    mesh: Mesh, method: Literal["uniform", "cot", "cotcurv"] = "uniform"
) -> Float[Tensor, ""]:
    """Compute the mean of |Σ_j w_ij (v_j − v_i)| over the vertices i, with neighbors j.

    uniform: w_ij = 1 / number of neighbors; in world units.
    cot: w_ij proportional to c_ij = cot α_ij + cot β_ij, with Σ_j w_ij = 1; in world units.
    cotcurv: w_ij = c_ij / (4 A_i), which gives a third of the mean curvature; in inverse world units.
    α_ij and β_ij are the angles opposite the edge, A_i is the area of the faces around i. A vertex contributes zero
    where the w_ij are undefined: without neighbors, without area, or if its c_ij do not have a positive sum.
    Differentiable in: the vertices, with the weights held fixed. Source: Desbrun et al. 1999, eq. 8 to 14.
    """
    if method not in ("uniform", "cot", "cotcurv"):
        raise InputError(
            f'mesh_laplacian_smoothing: `method` should be "uniform", "cot" or "cotcurv", got {method!r}'
        )
    if method == "uniform":
        return uniform_laplacian_loss(mesh.vertices, topology(mesh.faces).edges)
    columns = as_columns(mesh.vertices)
    edge_weights, vertex_weights = _laplacian_weights(columns.detach(), mesh.faces, method)
    start, end = topology(mesh.faces).edges.unbind(1)
    weighted = edge_weights * edge_vectors(columns, topology(mesh.faces).edges)
    size = columns.shape[-1]
    laplacian = scatter_sum(weighted, start, size) - scatter_sum(weighted, end, size)
    return mean(norm(vertex_weights * laplacian))


def _laplacian_weights(columns: Tensor, faces: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """Compute w_ij as the product of a weight per edge and a weight per vertex i."""
    found, size = topology(faces), columns.shape[-1]
    cotangents, areas = _cotangents(columns, faces)
    edge_weights = scatter_sum(cotangents, found.face_edges.mT.flatten(), len(found.edges))
    start, end = found.edges.unbind(1)
    if method == "cot":
        return edge_weights, _inverse(
            scatter_sum(edge_weights, start, size) + scatter_sum(edge_weights, end, size)
        )
    vertex_areas = scatter_sum(torch.cat([areas] * 3, -1), faces.mT.flatten(), size)
    return edge_weights, _inverse(4 * vertex_areas)


def _cotangents(columns: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the cotangents of the angles opposite the edges of all faces, and the face areas.

    Cotangents are limited to about 1e6 for slivers, well within the range of single precision.
    """
    a, b, c = corners(columns, faces)
    ab, bc, ca = b - a, c - b, a - c
    twice = norm(cross(ab, bc)).unsqueeze(-2)
    longest = torch.stack([dot(ab, ab), dot(bc, bc), dot(ca, ca)], -2).amax(-2, keepdim=True)
    safe = torch.maximum(twice, 1e-6 * longest).clamp_min(torch.finfo(twice.dtype).tiny)
    across = [-dot(bc, ca), -dot(ca, ab), -dot(ab, bc)]
    return torch.cat([x.unsqueeze(-2) / safe for x in across], -1), twice / 2


def _inverse(values: Tensor) -> Tensor:
    """Return 1 / x for positive x, else 0."""
    return torch.where(values > 0, 1 / values, 0)
