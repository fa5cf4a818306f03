"""The pictures on the faces of a Wavefront OBJ file."""

import logging
import re
from pathlib import Path

import numpy as np

from unrender.io.contents import Indices
from unrender.io.face_textures import Paint, Painting
from unrender.io.files import MissingFileError, read_bytes, reading
from unrender.io.mtl import MtlMaterial, find_file, read_mtl
from unrender.io.obj import Rows, corners, keyword_rows, table, vertices
from unrender.io.polygons import triangulate

_UV = re.compile(r"[^\s/]+/?([^\s/]*)\S*")
"""The second number of `1/2/3`."""


def read_obj_painting(path: Path) -> Painting | None:
    """Read which material is on which face, and where its corners lie on the picture.

    Faces without `vt` have the color of their material; those without material are white.
    """
    data = read_bytes(path)
    with reading(path):
        rows = keyword_rows(data, ("v", "vt", "f", "usemtl", "mtllib"))
        if not all(rows[keyword][0] for keyword in ("vt", "f", "usemtl", "mtllib")):
            return None
        uvs = table(*rows["vt"], "texture coordinate", 2)[:, :2]
        faces, uses = _faces(rows)
    on_picture = (faces >= 0).all(axis=1)
    kinds, kind = np.unique(np.stack([uses, on_picture]), axis=1, return_inverse=True)
    materials = _materials(path, rows["mtllib"])
    paints = [_paint(path, rows["usemtl"], materials, int(use), bool(on)) for use, on in kinds.T]
    distinct = list(dict.fromkeys(paints))
    return Painting(uvs, faces, np.array([distinct.index(paint) for paint in paints])[kind], distinct)


def _faces(rows: dict[str, Rows]) -> tuple[Indices, Indices]:
    """Return which uvs the corners of the triangles have, −1 for none, and after how many `usemtl` each stands."""
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
    """Read all libraries; the first to name a material counts."""
    materials: dict[str, MtlMaterial] = {}
    for line, text in zip(*libraries, strict=True):
        files = _library_files(path.parent, text.strip())
        if not files:
            raise MissingFileError(
                f"{path}, line {line}: there is no material file {text.strip()!r} in {path.parent}; "
                "load_mesh reads the shape alone"
            )
        for file in files:
            materials = read_mtl(file) | materials
    return materials


def _library_files(folder: Path, text: str) -> list[Path]:
    """Take a line as the name of one file, else as several with blanks between, some of which may be missing."""
    names = [text, *re.split(r"(?<!\\)\s+", text)]
    files = [find_file(folder, name.replace("\\ ", " ")) for name in names]
    return [file for file in (files[:1] if files[0].is_file() else files) if file.is_file()]


def _paint(path: Path, uses: Rows, materials: dict[str, MtlMaterial], use: int, on_picture: bool) -> Paint:
    if use == 0:
        return Paint()
    line, name = uses[0][use - 1], uses[1][use - 1].strip()
    if name not in materials:
        logging.getLogger("unrender").warning(
            "%s, line %d: no material is called %r: white", path, line, name
        )
        return Paint()
    return materials[name].paint(path) if on_picture else Paint(materials[name].color)
