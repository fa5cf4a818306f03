"""The pictures on the faces of a PLY file, as MeshLab and OpenMVS name them in comments."""

import re
from pathlib import Path

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.contents import Floats, Indices
from unrender.io.face_textures import Paint, Painting
from unrender.io.files import read_bytes, reading
from unrender.io.lines import plain_text
from unrender.io.mtl import find_file
from unrender.io.ply import Table, face_corners, read_tables, stack
from unrender.io.polygons import triangulate

_NAMES = (("texture_u", "texture_v"), ("u", "v"), ("s", "t"))


def read_ply_painting(path: Path) -> Painting | None:
    """Read where the corners of faces lie on the pictures; faces that lie on none are white."""
    data = read_bytes(path)
    with reading(path):
        header = plain_text(data[: data.find(b"end_header")]).decode("latin-1")
        names = re.findall(
            r"^[ \t]*comment[ \t]+texturefile[ \t]+(.*\S)", header, re.IGNORECASE | re.MULTILINE
        )
        tables, points = read_tables(data) if names else ({}, np.empty(0))
        polygons = face_corners(tables.get("face", {}), points)
        if polygons is None:
            return None
        (corners, sizes), faces = polygons, tables["face"]
        uvs, places = _uvs(tables, corners, sizes)
        if uvs is None:
            return None
        order = triangulate(np.arange(len(corners)), sizes, points[corners])
        numbers = _picture_numbers(faces, len(sizes), len(names))
    triangles = places[order]
    paint_ids = np.where((triangles >= 0).all(axis=1), np.repeat(numbers, sizes - 2), -1) + 1
    pictures = [Paint(picture=find_file(path.parent, name), named_in=f"{path}'s header") for name in names]
    return Painting(uvs, triangles, paint_ids, [Paint(), *pictures])


def _uvs(tables: dict[str, Table], corners: Indices, sizes: Indices) -> tuple[Floats | None, Indices]:
    """Return uvs, and which of them each corner of each polygon has: its own, or that of its vertex."""
    if "texcoord" not in tables["face"]:
        found = (stack(tables["vertex"], *names) for names in _NAMES)
        return next((uvs for uvs in found if uvs is not None), None), corners
    values, lengths = tables["face"]["texcoord"]
    wrong = (lengths != 2 * sizes) & (lengths != 0)
    if wrong.any():
        at = int(wrong.argmax())
        raise FileFormatError(
            f"face {at + 1} has {sizes[at]} corners and {lengths[at]} numbers in 'texcoord'; it needs {2 * sizes[at]}"
        )
    has_uvs = np.repeat(lengths > 0, sizes)
    return values.reshape(-1, 2), np.where(has_uvs, np.cumsum(has_uvs) - 1, -1)


def _picture_numbers(faces: Table, num_faces: int, num_pictures: int) -> Indices:
    """Return which picture each polygon lies on, −1 for none."""
    if "texnumber" not in faces:
        return np.zeros(num_faces, np.int64)
    numbers: Indices = faces["texnumber"].values.astype(np.int64)
    wrong = numbers >= num_pictures
    if wrong.any():
        face, number = int(wrong.argmax()) + 1, numbers[wrong][0]
        raise FileFormatError(
            f"face {face} lies on picture {number}; the header names 0 to {num_pictures - 1}"
        )
    return numbers.clip(-1)
