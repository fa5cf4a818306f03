"""Triangle meshes from files, and back."""

import numpy as np
import torch

from unrender._checked import describe_value
from unrender.errors import FileFormatError, InputError
from unrender.geometry.mesh import Mesh
from unrender.io.contents import Contents, floats_from_tensor, rgb_from_tensor
from unrender.io.files import FilePath
from unrender.io.formats import MESH_READERS, MESH_WRITERS, read_contents, write_contents


def load_mesh(path: FilePath) -> Mesh:
    """Load a mesh from ply, obj, stl, off or glb.

    Polygons are cut into triangles; several objects in one file become one mesh.
    Positions are float64 where the file holds doubles, or digits that float32 would lose; else float32.
    Raises `FileFormatError` for a damaged file, `InputError` for a path or suffix that cannot be used.
    """
    return mesh_from_contents(read_contents(path, MESH_READERS), path)


def mesh_from_contents(contents: Contents, path: FilePath) -> Mesh:
    """Make a mesh of what a file held; refuse points without faces, and vertices that are not finite."""
    if contents.faces is None:
        raise FileFormatError(f"{path}: {len(contents.points)} points and no faces: read it with load_cloud")
    wrong = ~np.isfinite(contents.points).all(axis=1)
    if wrong.any():
        raise FileFormatError(
            f"{path}: vertex {int(wrong.argmax()) + 1} is {contents.points[wrong][0]}, not finite"
        )
    return Mesh(
        torch.from_numpy(np.array(contents.points)),
        torch.from_numpy(contents.faces),
        None if contents.colors is None else torch.from_numpy(contents.colors),
    )


def save_mesh(mesh: Mesh, path: FilePath) -> None:
    """Save a mesh to ply, obj, stl or glb; colors and float64 are kept where the format can hold them."""
    if mesh.vertices.ndim != 2:
        raise InputError(
            f"save_mesh: one pose fits into a file, got {describe_value(mesh.vertices)}; index the mesh"
        )
    if len(mesh.faces) == 0 or not mesh.vertices.isfinite().all():
        reason = "not all vertices are finite" if len(mesh.faces) else "it has no faces"
        raise InputError(f"save_mesh: the mesh for {path} was not written: {reason}")
    faces = mesh.faces.cpu().numpy().astype(np.int64)
    contents = Contents(floats_from_tensor(mesh.vertices), faces, None, rgb_from_tensor(mesh.vertex_colors))
    write_contents(path, MESH_WRITERS, contents)
