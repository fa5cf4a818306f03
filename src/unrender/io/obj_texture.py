"""Materials and texture coordinates of Wavefront OBJ files."""

import logging
import re
from pathlib import Path

import numpy as np

from unrender.io.face_materials import BaseColor, FaceMaterials
from unrender.io.files import MissingFileError, is_file, read_bytes, reading
from unrender.io.geometry_data import Indices
from unrender.io.mtl import MtlMaterial, find_file, read_mtl
from unrender.io.obj import Rows, corners, keyword_rows, table, vertices
from unrender.io.polygons import triangulate

log = logging.getLogger("unrender")
_UV = re.compile(r"[^\s/]+/?([^\s/]*)\S*")
"""Matches the second number of `1/2/3`."""


def read_obj_materials(path: Path) -> FaceMaterials | None:
    """Read the material and the texture coordinates of each face; None if the file has no textures.

    Faces without `vt` get the color of their material; faces without material are white. If no face names a material,
    the only one of the library is that of all faces.
    """
    data = read_bytes(path)
    with reading(path):
        rows = keyword_rows(data, ("v", "vt", "f", "usemtl", "mtllib"))
        if not all(rows[keyword][0] for keyword in ("vt", "f")):
            return None
        if not rows["mtllib"][0]:
            log.warning("%s: texture coordinates, but no material file (mtllib): read without texture", path)
            return None
        uvs = table(*rows["vt"], "texture coordinate", 2)[:, :2]
        faces, uses = _faces(rows)
    has_uvs = (faces >= 0).all(axis=1)
    kinds, kind = np.unique(np.stack([uses, has_uvs]), axis=1, return_inverse=True)
    materials = _materials(path, rows["mtllib"])
    base_colors = [
        _base_color(path, rows["usemtl"], materials, int(use), bool(textured)) for use, textured in kinds.T
    ]
    distinct = list(dict.fromkeys(base_colors))
    return FaceMaterials(
        uvs, faces, np.array([distinct.index(base_color) for base_color in base_colors])[kind], distinct
    )


def _faces(rows: dict[str, Rows]) -> tuple[Indices, Indices]:
    """Return the UV indices of the triangles' corners, −1 for none, and the number of `usemtl` before each triangle."""
    numbers, texts = rows["f"]
    first = [re.sub(r"/\S*", "", text) for text in texts]
    second = [_UV.sub(lambda corner: corner[1] or "0", text) for text in texts]
    points, _ = vertices(*rows["v"])
    of_vertex, sizes = corners(numbers, first, np.array(rows["v"][0]), "vertex")
    of_uv, _ = corners(numbers, second, np.array(rows["vt"][0]), "texture coordinate", none=0)
    order = triangulate(np.arange(len(of_vertex)), sizes, points[of_vertex])
    uses = np.searchsorted(rows["usemtl"][0], numbers)
    return of_uv[order], np.repeat(uses, sizes - 2)


def _materials(path: Path, libraries: Rows) -> dict[str, MtlMaterial]:
    """Read all libraries; of several materials with the same name, the first one counts."""
    materials: dict[str, MtlMaterial] = {}
    for line, text in zip(*libraries, strict=True):
        files = _library_files(path.parent, text.strip())
        if not files:
            raise MissingFileError(
                f"{path}, line {line}: material file {text.strip()!r} not found in {path.parent}; "
                "use load_mesh to load the geometry only"
            )
        for file in files:
            materials = read_mtl(file) | materials
    return materials


def _library_files(folder: Path, text: str) -> list[Path]:
    """Interpret a line as one file name, else as several separated by blanks, some of which may be missing."""
    names = [text, *re.split(r"(?<!\\)\s+", text)]
    files = [find_file(folder, name.replace("\\ ", " ")) for name in names]
    return [file for file in (files[:1] if is_file(files[0]) else files) if is_file(file)]


def _base_color(
    path: Path, uses: Rows, materials: dict[str, MtlMaterial], use: int, textured: bool
) -> BaseColor:
    if use == 0 and not uses[0] and len(materials) == 1:  # as other programs show such files
        only = next(iter(materials.values()))
        return only.base_color(path) if textured else BaseColor(only.color)
    if use == 0:
        if not uses[0] and materials:
            log.warning("%s: %d materials, but no usemtl: read without texture", path, len(materials))
        return BaseColor()
    line, name = uses[0][use - 1], uses[1][use - 1].strip()
    if name not in materials:
        log.warning("%s, line %d: undefined material %r; using white", path, line, name)
        return BaseColor()
    return materials[name].base_color(path) if textured else BaseColor(materials[name].color)
