"""Loading and saving of triangle meshes."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from unrender._checked import describe_value
from unrender.errors import FileFormatError, InputError
from unrender.geometry.mesh import Mesh
from unrender.io.files import FilePath
from unrender.io.formats import MESH_READERS, MESH_WRITERS, read_geometry_data, write_geometry_data
from unrender.io.geometry_data import GeometryData, check_colors, floats_from_tensor, rgb_from_tensor

NOTHING: Mapping[str, Tensor] = MappingProxyType({})


def load_mesh(path: FilePath) -> Mesh:
    """Load a mesh from ply, obj, stl, off, glb or gltf.

    Polygons are triangulated; several objects in one file become one mesh. Positions are float64 if the file stores
    doubles, or digits that float32 would lose; otherwise float32. For textures, use `load_textured_mesh`.
    Raises `FileFormatError` for a damaged file, `InputError` for a path that cannot be read or an unsupported suffix.
    """
    return mesh_from_geometry_data(read_geometry_data(path, MESH_READERS), path)


def mesh_from_geometry_data(geometry: GeometryData, path: FilePath) -> Mesh:
    """Create a mesh from the content of a file; raise an error if it has no faces, or non-finite vertices."""
    if geometry.faces is None:
        raise FileFormatError(
            f"{path}: the file has {len(geometry.points)} points but no faces; use load_cloud for point clouds"
        )
    wrong = ~np.isfinite(geometry.points).all(axis=1)
    if wrong.any():
        raise FileFormatError(
            f"{path}: vertex {int(wrong.argmax()) + 1} is not finite: {geometry.points[wrong][0]}"
        )
    check_colors(geometry, path)
    return Mesh(
        torch.from_numpy(np.array(geometry.points)),
        torch.from_numpy(geometry.faces),
        None if geometry.colors is None else torch.from_numpy(geometry.colors),
    )


def save_mesh(mesh: Mesh, path: FilePath, vertex_values: Mapping[str, Tensor] = NOTHING) -> None:
    """Save a mesh to ply, obj, stl or glb; vertex colors and float64 are kept if the format supports them.

    vertex_values: a number or a truth value for each vertex, by the name of a property; only ply stores them.
    """
    if mesh.vertices.ndim != 2:
        raise InputError(
            f"save_mesh: expected a single mesh, got a batch with vertices {describe_value(mesh.vertices)}; "
            "index the batch"
        )
    if len(mesh.faces) == 0 or not mesh.vertices.isfinite().all():
        reason = "not all vertices are finite" if len(mesh.faces) else "it has no faces"
        raise InputError(f"save_mesh: cannot save to {path}: {reason}")
    faces = mesh.faces.cpu().numpy().astype(np.int64)
    geometry = GeometryData(
        floats_from_tensor(mesh.vertices),
        faces,
        None,
        rgb_from_tensor(mesh.vertex_colors),
        {name: values.detach().cpu().numpy() for name, values in vertex_values.items()},
    )
    write_geometry_data(path, MESH_WRITERS, geometry)
