"""Laplacian smoothing of meshes."""

from typing import Literal

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.loss._batches import mean_over_meshes
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.geometry.mesh import Mesh
from unrender.geometry.topology import topology
from unrender.losses import regularize


def mesh_laplacian_smoothing(
    meshes: Meshes, method: Literal["uniform", "cot", "cotcurv"] = "uniform"
) -> Tensor:
    """Average the Laplacian's length over the vertices of each mesh, and over the meshes.

    A vertex without neighbors counts as its distance from the origin, except for "cotcurv".
    """

    def smoothness(mesh: Mesh) -> Tensor:
        loss = regularize.mesh_laplacian_smoothing(mesh, method)
        count = mesh.vertices.shape[-2]
        if method == "cotcurv" or topology(mesh.faces).num_vertices == count:
            return loss
        unused = torch.ones(count, dtype=torch.bool, device=mesh.faces.device)
        unused[mesh.faces.flatten()] = False
        far: Tensor = mesh.vertices[unused].norm(dim=-1).sum() / count
        return loss + far

    return mean_over_meshes(meshes, smoothness)


__getattr__ = refuse_unknown(__name__)
