"""Laplacian smoothing of meshes."""

from typing import Literal

from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.loss._batches import mean_over_meshes
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.losses import regularize


def mesh_laplacian_smoothing(
    meshes: Meshes, method: Literal["uniform", "cot", "cotcurv"] = "uniform"
) -> Tensor:
    """Average the Laplacian's length over the vertices of each mesh, and over the meshes."""
    return mean_over_meshes(meshes, lambda mesh: regularize.mesh_laplacian_smoothing(mesh, method))


__getattr__ = refuse_unknown(__name__)
