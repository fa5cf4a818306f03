"""Consistency of the normals of adjacent faces."""

from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.loss._batches import mean_over_meshes
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.losses import regularize


def mesh_normal_consistency(meshes: Meshes) -> Tensor:
    """Average 1 − cos over the pairs of faces at the edges of each mesh, and over the meshes."""
    return mean_over_meshes(meshes, regularize.mesh_normal_consistency)


__getattr__ = refuse_unknown(__name__)
