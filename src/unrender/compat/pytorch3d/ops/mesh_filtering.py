"""Smoothing of meshes."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.geometry.smooth import smooth_taubin


def taubin_smoothing(meshes: Meshes, lambd: float = 0.53, mu: float = -0.53, num_iter: int = 10) -> Meshes:
    """Smooth meshes without shrinking them: steps towards the neighbors by `lambd`, and away from them by `mu`."""
    smooth = [smooth_taubin(mesh, num_iter, shrink=lambd, inflate=mu) for mesh in meshes.core()]
    return Meshes([mesh.vertices for mesh in smooth], meshes.faces_list(), meshes.textures)


__getattr__ = refuse_unknown(__name__)
