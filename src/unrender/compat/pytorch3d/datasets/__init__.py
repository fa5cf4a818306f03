"""Loaders of ShapeNetCore and R2N2, for folders that you have."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.datasets.r2n2 import R2N2, BlenderCamera
from unrender.compat.pytorch3d.datasets.r2n2.utils import collate_batched_R2N2, render_cubified_voxels
from unrender.compat.pytorch3d.datasets.shapenet import ShapeNetCore
from unrender.compat.pytorch3d.datasets.utils import collate_batched_meshes

__all__ = [
    "R2N2",
    "BlenderCamera",
    "ShapeNetCore",
    "collate_batched_R2N2",
    "collate_batched_meshes",
    "render_cubified_voxels",
]


__getattr__ = refuse_unknown(__name__)
