"""Areas and normals of faces."""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.geometry.mesh import Mesh, face_areas, face_normals


def mesh_face_areas_normals(verts: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Return the areas [F] and unit normals [F, 3] of faces; both are zero for degenerate faces."""
    if verts.dim() != 2 or faces.dim() != 2 or verts.shape[1] != 3 or faces.shape[1] != 3:
        raise ValueError(
            f"mesh_face_areas_normals: takes [V, 3] and [F, 3], got {list(verts.shape)} and {list(faces.shape)}"
        )
    if not len(faces):
        return verts.new_zeros(0), verts.new_zeros(0, 3)
    mesh = Mesh(verts, faces.to(torch.int64))
    return face_areas(mesh), face_normals(mesh)


face_areas_normals = mesh_face_areas_normals


__getattr__ = refuse_unknown(__name__)
