"""Mesh smoothing."""

import torch
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.topology import topology

EPSILON = 1e-12


def smooth_taubin(mesh: Mesh, steps: int = 10, *, shrink: float = 0.53, inflate: float = -0.53) -> Mesh:
    """Smooth a mesh without shrinking it: a step towards the mean of the neighbors, then one away from it.

    v ← v + λ (Σ_j w_ij v_j / Σ_j w_ij − v), with λ = `shrink`, then `inflate`, and w_ij = 1 / |v_i − v_j|. Use it on
    noisy meshes, such as those from marching cubes. Vertices without faces keep their positions.
    Differentiable in: vertices and colors. Source: Taubin 1995; weights of Desbrun et al. 1999.
    """
    if steps < 0:
        raise InputError(f"smooth_taubin: `steps` should be at least 0, got {steps}")
    start, end = topology(mesh.faces).edges.unbind(1)
    vertices = mesh.vertices
    for _ in range(steps):
        for factor in (shrink, inflate):
            vertices = vertices + factor * _to_neighbors(vertices, start, end)
    return mesh.replace(vertices=vertices)


def _to_neighbors(vertices: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Return the way from each vertex to the weighted mean of its neighbors."""
    a, b = vertices.index_select(-2, start), vertices.index_select(-2, end)
    weights = 1 / ((a - b).norm(dim=-1, keepdim=True) + EPSILON)
    weighted = torch.zeros_like(vertices).index_add(-2, start, weights * b).index_add(-2, end, weights * a)
    total = torch.zeros_like(vertices[..., :1]).index_add(-2, start, weights).index_add(-2, end, weights)
    return torch.where(total > 0, weighted / total.clamp(min=EPSILON) - vertices, 0)
