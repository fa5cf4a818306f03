"""Losses for meshes and clouds."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.loss.chamfer import chamfer_distance
from unrender.compat.pytorch3d.loss.mesh_edge_loss import mesh_edge_loss
from unrender.compat.pytorch3d.loss.mesh_laplacian_smoothing import mesh_laplacian_smoothing
from unrender.compat.pytorch3d.loss.mesh_normal_consistency import mesh_normal_consistency
from unrender.compat.pytorch3d.loss.point_mesh_distance import (
    point_mesh_edge_distance,
    point_mesh_face_distance,
)

__all__ = [
    "chamfer_distance",
    "mesh_edge_loss",
    "mesh_laplacian_smoothing",
    "mesh_normal_consistency",
    "point_mesh_edge_distance",
    "point_mesh_face_distance",
]

__getattr__ = refuse_unknown(__name__)
