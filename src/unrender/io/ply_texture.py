"""Textures of PLY files, referenced in comments as by MeshLab and OpenMVS."""

import re
from pathlib import Path

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.face_materials import BaseColor, FaceMaterials
from unrender.io.files import read_bytes, reading
from unrender.io.geometry_data import Floats, Indices
from unrender.io.lines import plain_text
from unrender.io.mtl import find_file
from unrender.io.ply import Table, face_corners, read_tables, stack
from unrender.io.polygons import triangulate

_NAMES = (("texture_u", "texture_v"), ("u", "v"), ("s", "t"))


def read_ply_materials(path: Path) -> FaceMaterials | None:
    """Read texture coordinates and texture files; None if the file has none. Faces without texture are white."""
    data = read_bytes(path)
    with reading(path):
        names = texture_files(data)
        tables, points = read_tables(data) if names else ({}, np.empty(0))
        polygons = face_corners(tables.get("face", {}), points)
        if polygons is None:
            return None
        (corners, sizes), faces = polygons, tables["face"]
        uvs, uv_ids = _uvs(tables, corners, sizes)
        if uvs is None:
            return None
        order = triangulate(np.arange(len(corners)), sizes, points[corners])
        image_ids = _image_ids(faces, len(sizes), len(names))
    triangles = uv_ids[order]
    material_ids = np.where((triangles >= 0).all(axis=1), np.repeat(image_ids, sizes - 2), -1) + 1
    images = [BaseColor(image=find_file(path.parent, name), source=f"{path}'s header") for name in names]
    return FaceMaterials(uvs, triangles, material_ids, [BaseColor(), *images])


def texture_files(data: bytes) -> list[str]:
    """Return the names of the texture files in the comments of a header."""
    header = plain_text(data[: data.find(b"end_header")]).decode("latin-1")
    return re.findall(r"^[ \t]*comment[ \t]+texturefile[ \t]+(.*\S)", header, re.IGNORECASE | re.MULTILINE)


def vertex_uvs(vertices: Table) -> Floats | None:
    """Return the UV coordinates of vertices under one of their usual names."""
    found = (stack(vertices, *names) for names in _NAMES)
    return next((uvs for uvs in found if uvs is not None), None)


def _uvs(tables: dict[str, Table], corners: Indices, sizes: Indices) -> tuple[Floats | None, Indices]:
    """Return UV coordinates, and the index of each polygon corner into them, per corner or per vertex."""
    if "texcoord" not in tables["face"]:
        return vertex_uvs(tables["vertex"]), corners
    values, lengths = tables["face"]["texcoord"]
    wrong = (lengths != 2 * sizes) & (lengths != 0)
    if wrong.any():
        at = int(wrong.argmax())
        raise FileFormatError(
            f"face {at + 1} has {sizes[at]} corners and should have {2 * sizes[at]} numbers in 'texcoord', "
            f"got {lengths[at]}"
        )
    has_uvs = np.repeat(lengths > 0, sizes)
    return values.reshape(-1, 2), np.where(has_uvs, np.cumsum(has_uvs) - 1, -1)


def _image_ids(faces: Table, num_faces: int, num_images: int) -> Indices:
    """Return the index of each polygon's image, −1 for none."""
    if "texnumber" not in faces:
        return np.zeros(num_faces, np.int64)
    ids: Indices = faces["texnumber"].values.astype(np.int64)
    wrong = ids >= num_images
    if wrong.any():
        face, number = int(wrong.argmax()) + 1, ids[wrong][0]
        raise FileFormatError(
            f"face {face} references texture {number}, but the header declares 0 to {num_images - 1}"
        )
    return ids.clip(-1)
