"""The unit sphere."""

import torch

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.geometry import shapes


def ico_sphere(level: int = 0, device: torch.device | str | None = None) -> Meshes:
    """Build the unit sphere by subdividing an icosahedron `level` times."""
    mesh = shapes.ico_sphere(level).to(device or "cpu")
    return Meshes([mesh.vertices], [mesh.faces])


__getattr__ = refuse_unknown(__name__)
