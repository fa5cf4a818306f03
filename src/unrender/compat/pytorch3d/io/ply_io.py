"""Stanford PLY in PyTorch3D's layout: values as they are in the file, and polygons as fans."""

import re
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.io._polygons import fans, warn_of_invalid
from unrender.compat.pytorch3d.io._sources import Source, folder_of, read_source, reading_source, writing
from unrender.compat.pytorch3d.io.pluggable_formats import (
    MeshFormatInterpreter,
    PointcloudFormatInterpreter,
    endswith,
)
from unrender.compat.pytorch3d.renderer.mesh.textures import TexturesUV, TexturesVertex
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.compat.pytorch3d.structures.pointclouds import Pointclouds
from unrender.errors import InputError
from unrender.io.files import is_file
from unrender.io.geometry_data import check_finite
from unrender.io.images import load_image
from unrender.io.mtl import find_file
from unrender.io.ply import Table, face_corners, read_tables, stack
from unrender.io.ply_texture import texture_files, vertex_uvs

Device = torch.device | str


class PlyData(NamedTuple):
    """Vertices and faces, and the normals, colors and texture coordinates of vertices, if the file has any."""

    verts: Tensor
    faces: Tensor
    normals: Tensor | None = None
    colors: Tensor | None = None
    uvs: Tensor | None = None
    image: str | None = None
    """The texture file that a comment names."""


def load_ply(f: Source, *, path_manager: Any = None) -> tuple[Tensor, Tensor]:
    """Load vertices [V, 3] and faces [F, 3]; polygons are split into fans."""
    found = read_tensors(f)
    return found.verts, found.faces


def read_tensors(f: Source) -> PlyData:
    """Load what a file has; colors stored as bytes are divided by 255, others are kept."""
    data = read_source(f)
    if re.search(rb"^element vertex 0\s*$", data.partition(b"end_header")[0], re.MULTILINE):
        return PlyData(torch.empty(0, 3), torch.empty(0, 3, dtype=torch.int64))
    with reading_source(f):
        tables, points = read_tables(data)
        check_finite(points, "vertex")
        corners = face_corners(tables.get("face", {}), points)
    faces = np.empty((0, 3), np.int64) if corners is None else fans(*corners)
    vertices = tables["vertex"]
    uvs = vertex_uvs(vertices)
    return PlyData(
        torch.from_numpy(points.astype(np.float32)),
        torch.from_numpy(faces),
        _columns(vertices, "nx", "ny", "nz"),
        _columns(vertices, "red", "green", "blue"),
        None if uvs is None else torch.from_numpy(uvs.astype(np.float32)),
        next(iter(texture_files(data)), None),
    )


def _columns(vertices: Table, *names: str) -> Tensor | None:
    values = stack(vertices, *names)
    if values is None:
        return None
    scale = 255 if vertices[names[0]].values.dtype == np.uint8 else 1
    return torch.from_numpy(values.astype(np.float32) / np.float32(scale))


def save_ply(
    f: Source,
    verts: Tensor,
    faces: Tensor | None = None,
    verts_normals: Tensor | None = None,
    ascii: bool = False,
    decimal_places: int | None = None,
    path_manager: Any = None,
) -> None:
    """Save vertices, and faces and normals if given, atomically."""
    if len(verts) and (verts.dim() != 2 or verts.shape[1] != 3):
        raise InputError(f"save_ply: `verts` should be [V, 3], got {list(verts.shape)}")
    if faces is not None and len(faces) and (faces.dim() != 2 or faces.shape[1] != 3):
        raise InputError(f"save_ply: `faces` should be [F, 3], got {list(faces.shape)}")
    if verts_normals is not None and len(verts_normals) and verts_normals.shape != verts.shape:
        raise InputError(f"save_ply: `verts_normals` should be like `verts`, got {list(verts_normals.shape)}")
    if not len(verts):
        warnings.warn("Empty 'verts' provided: faces are not saved", stacklevel=2)
        faces = None
    write_tensors(f, verts, faces, verts_normals, None, ascii=ascii, decimal_places=decimal_places)


def write_tensors(
    f: Source,
    verts: Tensor,
    faces: Tensor | None,
    normals: Tensor | None,
    colors: Tensor | None,
    *,
    ascii: bool,
    decimal_places: int | None = None,
    colors_as_uint8: bool = False,
) -> None:
    """Save float32 values as they are; with `colors_as_uint8`, colors as bytes 0 to 255."""
    verts = verts.reshape(-1, 3)
    columns = [(name, "float", verts[:, i]) for i, name in enumerate("xyz")]
    if normals is not None and normals.numel():
        columns += [(name, "float", normals[:, i]) for i, name in enumerate(("nx", "ny", "nz"))]
    if colors is not None and colors.numel():
        kind, values = "float", colors
        if colors_as_uint8:
            kind, values = "uchar", (colors * 255).round().clamp(0, 255)
        columns += [(name, kind, values[:, i]) for i, name in enumerate(("red", "green", "blue"))]
    header = ["ply", f"format {'ascii' if ascii else 'binary_little_endian'} 1.0"]
    header += [f"element vertex {len(verts)}", *(f"property {kind} {name}" for name, kind, _ in columns)]
    triangles = None if faces is None else faces.detach().cpu().numpy().reshape(-1, 3)
    if triangles is not None:
        warn_of_invalid(triangles, len(verts), "vertices")
        header += [f"element face {len(triangles)}", "property list uchar int vertex_index"]
    table = np.empty(len(verts), [(name, {"float": "<f4", "uchar": "u1"}[kind]) for name, kind, _ in columns])
    for name, _, column in columns:
        table[name] = column.detach().cpu().numpy()
    with writing(f) as file:
        file.write("\n".join([*header, "end_header", ""]).encode())
        if ascii:
            digits = "%.9g" if decimal_places is None else f"%.{decimal_places}f"
            np.savetxt(file, table, ["%d" if kind == "uchar" else digits for _, kind, _ in columns])
            if triangles is not None:
                np.savetxt(file, triangles, "3 %d %d %d")
            return
        file.write(table.tobytes())
        if triangles is not None:
            rows = np.empty(len(triangles), [("size", "u1"), ("corners", "<i4", 3)])
            rows["size"], rows["corners"] = 3, triangles
            file.write(rows.tobytes())


class MeshPlyFormat(MeshFormatInterpreter):
    """Meshes in PLY files, with normals and vertex colors."""

    def __init__(self) -> None:
        self.known_suffixes = (".ply",)

    def read(
        self, path: Source, include_textures: bool, device: Device, path_manager: Any = None, **kwargs: Any
    ) -> Meshes | None:
        """Load a mesh, or return None for a file of another kind."""
        if not endswith(path, self.known_suffixes):
            return None
        found = read_tensors(path)
        faces = found.faces.to(device)
        textures = _textures(path, found, faces) if include_textures else None
        normals = None if found.normals is None else [found.normals.to(device)]
        return Meshes([found.verts.to(device)], [faces], textures, verts_normals=normals)

    def save(
        self,
        data: Meshes,
        path: Source,
        path_manager: Any = None,
        binary: bool | None = None,
        decimal_places: int | None = None,
        colors_as_uint8: bool = False,
        **kwargs: Any,
    ) -> bool:
        """Save the first mesh, or return False for a path of another kind."""
        if not endswith(path, self.known_suffixes):
            return False
        verts, faces = data.get_mesh_verts_faces(0)
        textures = data.textures if kwargs.get("include_textures", True) else None
        colors = textures.verts_features_list()[0] if isinstance(textures, TexturesVertex) else None
        write_tensors(
            path,
            verts,
            faces,
            data.verts_normals_list()[0] if data.has_verts_normals() else None,
            _three_channels(colors, "Texture"),
            ascii=binary is False,
            decimal_places=decimal_places,
            colors_as_uint8=colors_as_uint8,
        )
        return True


def _textures(path: Source, found: PlyData, faces: Tensor) -> TexturesUV | TexturesVertex | None:
    """Return the texture image that the header names, if vertices have coordinates for it, else their colors."""
    if found.uvs is not None and found.image is not None:
        file = find_file(folder_of(path), found.image)
        if is_file(file):
            image = load_image(file)[..., :3].to(faces.device)
            return TexturesUV([image], [faces], [found.uvs.to(faces.device)])
        warnings.warn(f"Texture file does not exist: {file}", stacklevel=4)
    return None if found.colors is None else TexturesVertex([found.colors.to(faces.device)])


def _three_channels(values: Tensor | None, what: str) -> Tensor | None:
    if values is None or values.shape[1] == 3:
        return values
    warnings.warn(f"{what} will not be saved as it has {values.shape[1]} colors, not 3.", stacklevel=4)
    return None


class PointcloudPlyFormat(PointcloudFormatInterpreter):
    """Point clouds in PLY files, with normals, and colors as features."""

    def __init__(self) -> None:
        self.known_suffixes = (".ply",)

    def read(
        self, path: Source, device: Device, path_manager: Any = None, **kwargs: Any
    ) -> Pointclouds | None:
        """Load the vertices of a file, or return None for a file of another kind."""
        if not endswith(path, self.known_suffixes):
            return None
        found = read_tensors(path)
        normals, colors = (None if t is None else [t.to(device)] for t in (found.normals, found.colors))
        return Pointclouds([found.verts.to(device)], normals, colors)

    def save(
        self,
        data: Pointclouds,
        path: Source,
        path_manager: Any = None,
        binary: bool | None = None,
        decimal_places: int | None = None,
        colors_as_uint8: bool = False,
        **kwargs: Any,
    ) -> bool:
        """Save the first cloud, or return False for a path of another kind."""
        if not endswith(path, self.known_suffixes):
            return False
        points, normals, features = data.get_cloud(0)
        write_tensors(
            path,
            points,
            None,
            normals,
            _three_channels(features, "Features"),
            ascii=binary is False,
            decimal_places=decimal_places,
            colors_as_uint8=colors_as_uint8,
        )
        return True


__getattr__ = refuse_unknown(__name__)
