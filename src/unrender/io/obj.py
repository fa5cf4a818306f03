"""Wavefront OBJ: vertices and faces, regardless of groups, materials, texture coordinates and normals.

Not read by trimesh, which splits vertices along texture seams, accepts face index 0 as the first vertex, counts
relative indices from the end of the file, and sorts the faces by material.
"""

import re
from typing import BinaryIO

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.geometry_data import Floats, GeometryData, Indices, narrow_dtype, normalize_colors
from unrender.io.lines import parse_ragged, parse_rows, split_lines
from unrender.io.polygons import triangulate

Rows = tuple[list[int], list[str]]
"""Line numbers from 1, and the lines without their keyword."""


def read_obj(data: bytes) -> GeometryData:
    """Read vertices with colors, and faces; for files without faces, per-vertex normals."""
    rows = keyword_rows(data, ("v", "vn", "f"))
    points, colors = vertices(*rows["v"])
    faces = _faces(*rows["f"], np.array(rows["v"][0]), points)
    normals = None if len(faces) or not rows["vn"][0] else table(*rows["vn"], "normal")[:, :3]
    if normals is not None and normals.shape != points.shape:
        normals = None
    return GeometryData(narrow_dtype(points), faces if len(faces) else None, normals, colors)


def keyword_rows(data: bytes, keywords: tuple[str, ...]) -> dict[str, Rows]:
    """Collect the lines that begin with the given keywords."""
    rows: dict[str, Rows] = {keyword: ([], []) for keyword in keywords}
    for number, line in enumerate(_joined_lines(data), 1):
        words = line.split(None, 1)
        if words and words[0] in rows:
            numbers, texts = rows[words[0]]
            numbers.append(number)
            texts.append(words[1].partition(" #")[0] if len(words) == 2 else "")
    return rows


def _joined_lines(data: bytes) -> list[str]:
    """Split into lines; a line continued by a backslash is joined with the next one, which is left empty."""
    lines = split_lines(data)
    if b"\\" in data:
        for i in range(len(lines) - 2, -1, -1):
            if lines[i].endswith("\\"):
                lines[i], lines[i + 1] = f"{lines[i][:-1]} {lines[i + 1]}", ""
    return lines


def table(numbers: list[int], rows: list[str], what: str, min_columns: int = 3) -> Floats:
    """Parse the columns that all rows have."""
    widths = np.array([len(row.split()) for row in rows])
    narrow = int(widths.min())
    if narrow < min_columns:
        where = f"line {numbers[int(widths.argmin())]}"
        raise FileFormatError(f"{where}: the {what} does not have {min_columns} values (found {narrow})")
    if narrow < widths.max():
        rows = [" ".join(row.split()[:narrow]) for row in rows]
    return parse_rows(rows, numbers)


def vertices(numbers: list[int], rows: list[str]) -> tuple[Floats, Floats | None]:
    """Read x y z, and colors if all vertices have them."""
    if not rows:
        raise FileFormatError("the file has no vertices: no line begins with 'v'")
    columns = table(numbers, rows, "vertex")
    return columns[:, :3], normalize_colors(columns[:, 3:6]) if columns.shape[1] >= 6 else None


def _faces(numbers: list[int], rows: list[str], vertex_numbers: Indices, points: Floats) -> Indices:
    """Read the vertex indices of `f 1/2/3 4//5 -1`."""
    rows = [re.sub(r"/\S*", "", row) for row in rows]
    return triangulate(*corners(numbers, rows, vertex_numbers, "vertex"), points)


def corners(
    numbers: list[int],
    rows: list[str],
    defined: Indices,
    what: str,
    none: int | None = None,
    *,
    strict: bool = True,
) -> tuple[Indices, Indices]:
    """Read indices that count from 1, or negative ones relative to the last item `defined` on an earlier line.

    Returns zero-based indices, and their number per row. The value `none` stands for a missing index, returned as −1.
    Unless `strict`, whole numbers that are not the index of an item are returned, too.
    """
    flat, sizes = parse_ragged(rows, numbers)
    if len(sizes) and sizes.min() < 3:
        raise FileFormatError(
            f"line {numbers[int(sizes.argmin())]}: a face should have at least 3 corners, got {sizes.min()}"
        )
    given = flat.astype(np.int64)
    lines = np.repeat(np.array(numbers, dtype=np.int64), sizes)
    index = np.where(given < 0, given + np.searchsorted(defined, lines), given - 1)
    missing = (index < 0) | (index >= len(defined)) if strict else np.zeros(len(index), bool)
    wrong = (missing | (given != flat)) & (flat != none)
    if wrong.any():
        at = int(wrong.argmax())
        raise FileFormatError(
            f"line {lines[at]}: a face references {what} {flat[at]:g}, but the file has 1 to {len(defined)}"
        )
    return index, sizes


def write_obj(file: BinaryIO, geometry: GeometryData) -> None:
    """Write vertices in full precision with their colors, and faces."""
    digits = "%.17g" if geometry.points.dtype == np.float64 else "%.9g"
    columns, pattern = geometry.points, f"v {digits} {digits} {digits}"
    if geometry.colors is not None:
        columns, pattern = np.hstack([columns, geometry.colors]), f"{pattern} %.4f %.4f %.4f"
    np.savetxt(file, columns, pattern)
    if geometry.faces is not None:
        np.savetxt(file, geometry.faces + 1, "f %d %d %d")
