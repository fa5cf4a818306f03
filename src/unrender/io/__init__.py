"""Reading and writing of files, one format per module."""

from unrender.errors import FileAccessError
from unrender.io.clouds import load_cloud, save_cloud
from unrender.io.depth import load_depth, points_from_depth
from unrender.io.files import MissingFileError, atomic_write
from unrender.io.images import load_image, save_image
from unrender.io.meshes import load_mesh, save_mesh
from unrender.io.textures import load_textured_mesh

__all__ = [
    "FileAccessError",
    "MissingFileError",
    "atomic_write",
    "load_cloud",
    "load_depth",
    "load_image",
    "load_mesh",
    "load_textured_mesh",
    "points_from_depth",
    "save_cloud",
    "save_image",
    "save_mesh",
]
