"""The torus."""

import torch

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.geometry import shapes


def torus(r: float, R: float, sides: int, rings: int, device: torch.device | str | None = None) -> Meshes:
    """Build a torus around the z axis: a tube of radius `r` of `sides` around a circle of radius `R` of `rings`."""
    mesh = shapes.torus(R, r, rings, sides).to(device or "cpu")
    return Meshes([mesh.vertices], [mesh.faces])


__getattr__ = refuse_unknown(__name__)
