"""Batches of meshes, point clouds and volumes of different sizes."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.structures.join import join_meshes_as_batch, join_meshes_as_scene
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.compat.pytorch3d.structures.pointclouds import (
    Pointclouds,
    join_pointclouds_as_batch,
    join_pointclouds_as_scene,
)
from unrender.compat.pytorch3d.structures.utils import (
    list_to_packed,
    list_to_padded,
    packed_to_list,
    padded_to_list,
)
from unrender.compat.pytorch3d.structures.volumes import Volumes

__all__ = [
    "Meshes",
    "Pointclouds",
    "Volumes",
    "join_meshes_as_batch",
    "join_meshes_as_scene",
    "join_pointclouds_as_batch",
    "join_pointclouds_as_scene",
    "list_to_packed",
    "list_to_padded",
    "packed_to_list",
    "padded_to_list",
]

__getattr__ = refuse_unknown(__name__)
