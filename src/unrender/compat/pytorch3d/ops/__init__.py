"""Operations on clouds and meshes."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.ops.interp_face_attrs import interpolate_face_attributes
from unrender.compat.pytorch3d.ops.knn import knn_gather, knn_points
from unrender.compat.pytorch3d.ops.points_alignment import (
    corresponding_points_alignment,
    iterative_closest_point,
)
from unrender.compat.pytorch3d.ops.sample_points_from_meshes import sample_points_from_meshes
from unrender.compat.pytorch3d.ops.subdivide_meshes import SubdivideMeshes

__all__ = [
    "SubdivideMeshes",
    "corresponding_points_alignment",
    "interpolate_face_attributes",
    "iterative_closest_point",
    "knn_gather",
    "knn_points",
    "sample_points_from_meshes",
]

__getattr__ = refuse_unknown(__name__)
