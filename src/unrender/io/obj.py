"""Wavefront OBJ: one list of vertices, whatever groups, materials, textures and normals the faces also name.

Read here rather than by trimesh, which splits vertices along texture seams, reads face index 0 as the first
vertex, counts relative indices from the end of the file, and sorts the faces by material.
"""

import re
from typing import BinaryIO

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.contents import Contents, Floats, Indices, narrowest, unit_colors
from unrender.io.lines import parse_ragged, parse_rows, split_lines
from unrender.io.polygons import triangulate

Rows = tuple[list[int], list[str]]
"""Line numbers from 1, and what stands on the lines behind the keyword."""


def read_obj(data: bytes) -> Contents:
    """Read vertices, colors behind them, faces, and, where there are no faces, one normal for each vertex."""
    rows: dict[str, Rows] = {"v": ([], []), "vn": ([], []), "f": ([], [])}
    for number, line in enumerate(_joined_lines(data), 1):
        words = line.split(None, 1)
        if words and words[0] in rows:
            numbers, texts = rows[words[0]]
            numbers.append(number)
            texts.append(words[1].partition(" #")[0] if len(words) == 2 else "")
    points, colors = _vertices(*rows["v"])
    faces = _faces(*rows["f"], np.array(rows["v"][0]), points)
    normals = None if len(faces) or not rows["vn"][0] else _table(*rows["vn"], "normal")[:, :3]
    if normals is not None and normals.shape != points.shape:
        normals = None
    return Contents(narrowest(points), faces if len(faces) else None, normals, colors)


def _joined_lines(data: bytes) -> list[str]:
    """Split into lines; one that ends in a backslash goes on in the next, which stays as an empty one."""
    lines = split_lines(data)
    if b"\\" in data:
        for i in range(len(lines) - 2, -1, -1):
            if lines[i].endswith("\\"):
                lines[i], lines[i + 1] = f"{lines[i][:-1]} {lines[i + 1]}", ""
    return lines


def _table(numbers: list[int], rows: list[str], what: str) -> Floats:
    """Parse as many columns as all rows have."""
    widths = np.array([len(row.split()) for row in rows])
    narrow = int(widths.min())
    if narrow < 3:
        raise FileFormatError(f"line {numbers[int(widths.argmin())]}: a {what} needs 3 numbers, got {narrow}")
    if narrow < widths.max():
        rows = [" ".join(row.split()[:narrow]) for row in rows]
    return parse_rows(rows, numbers)


def _vertices(numbers: list[int], rows: list[str]) -> tuple[Floats, Floats | None]:
    if not rows:
        raise FileFormatError("no vertices: no line begins with 'v'")
    table = _table(numbers, rows, "vertex")
    return table[:, :3], unit_colors(table[:, 3:6]) if table.shape[1] >= 6 else None


def _faces(numbers: list[int], rows: list[str], vertex_numbers: Indices, points: Floats) -> Indices:
    """Read `f 1/2/3 4//5 -1`: the first numbers count from 1, or backwards from the last vertex so far."""
    rows = [re.sub(r"/\S*", "", row) for row in rows]
    flat, sizes = parse_ragged(rows, numbers)
    if len(sizes) and sizes.min() < 3:
        raise FileFormatError(
            f"line {numbers[int(sizes.argmin())]}: a face needs 3 corners, got {sizes.min()}"
        )
    corners = flat.astype(np.int64)
    lines = np.repeat(np.array(numbers, dtype=np.int64), sizes)
    index = np.where(corners < 0, corners + np.searchsorted(vertex_numbers, lines), corners - 1)
    wrong = np.flatnonzero((index < 0) | (index >= len(points)) | (corners != flat))
    if len(wrong):
        at = wrong[0]
        raise FileFormatError(
            f"line {lines[at]}: vertex {flat[at]:g} of a face; the file has 1 to {len(points)}"
        )
    return triangulate(index, sizes, points)


def write_obj(file: BinaryIO, contents: Contents) -> None:
    """Write vertices with all their digits, colors behind them, and faces."""
    digits = "%.17g" if contents.points.dtype == np.float64 else "%.9g"
    table, pattern = contents.points, f"v {digits} {digits} {digits}"
    if contents.colors is not None:
        table, pattern = np.hstack([table, contents.colors]), f"{pattern} %.4f %.4f %.4f"
    np.savetxt(file, table, pattern)
    if contents.faces is not None:
        np.savetxt(file, contents.faces + 1, "f %d %d %d")
