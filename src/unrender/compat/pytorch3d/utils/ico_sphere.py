"""The unit sphere."""

import torch
from torch.nn.functional import normalize

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.ops.subdivide_meshes import subdivide
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.geometry import shapes


def ico_sphere(level: int = 0, device: torch.device | str | None = None) -> Meshes:
    """Build the unit sphere by subdividing an icosahedron `level` times."""
    mesh = shapes.ico_sphere(0)
    if level < 0:
        raise ValueError(f"ico_sphere: `level` should be at least 0, got {level}")
    for _ in range(level):
        finer = subdivide(mesh)
        mesh = finer.replace(vertices=normalize(finer.vertices, dim=-1))
    mesh = mesh.to(device or "cpu")
    return Meshes([mesh.vertices], [mesh.faces])


__getattr__ = refuse_unknown(__name__)
