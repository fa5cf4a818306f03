"""Reading and writing of meshes and point clouds."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.io.obj_io import load_obj, load_objs_as_meshes, save_obj
from unrender.compat.pytorch3d.io.pluggable import IO
from unrender.compat.pytorch3d.io.ply_io import load_ply, save_ply

__all__ = ["IO", "load_obj", "load_objs_as_meshes", "load_ply", "save_obj", "save_ply"]

__getattr__ = refuse_unknown(__name__)
