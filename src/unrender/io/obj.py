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
    rows = keyword_rows(data, ("v", "vn", "f"))
    points, colors = vertices(*rows["v"])
    faces = _faces(*rows["f"], np.array(rows["v"][0]), points)
    normals = None if len(faces) or not rows["vn"][0] else table(*rows["vn"], "normal")[:, :3]
    if normals is not None and normals.shape != points.shape:
        normals = None
    return Contents(narrowest(points), faces if len(faces) else None, normals, colors)


def keyword_rows(data: bytes, keywords: tuple[str, ...]) -> dict[str, Rows]:
    """Sort the lines that begin with some keywords."""
    rows: dict[str, Rows] = {keyword: ([], []) for keyword in keywords}
    for number, line in enumerate(_joined_lines(data), 1):
        words = line.split(None, 1)
        if words and words[0] in rows:
            numbers, texts = rows[words[0]]
            numbers.append(number)
            texts.append(words[1].partition(" #")[0] if len(words) == 2 else "")
    return rows


def _joined_lines(data: bytes) -> list[str]:
    """Split into lines; one that ends in a backslash goes on in the next, which stays as an empty one."""
    lines = split_lines(data)
    if b"\\" in data:
        for i in range(len(lines) - 2, -1, -1):
            if lines[i].endswith("\\"):
                lines[i], lines[i + 1] = f"{lines[i][:-1]} {lines[i + 1]}", ""
    return lines


def table(numbers: list[int], rows: list[str], what: str, least: int = 3) -> Floats:
    """Parse as many columns as all rows have."""
    widths = np.array([len(row.split()) for row in rows])
    narrow = int(widths.min())
    if narrow < least:
        where = f"line {numbers[int(widths.argmin())]}"
        raise FileFormatError(f"{where}: a {what} needs {least} numbers, got {narrow}")
    if narrow < widths.max():
        rows = [" ".join(row.split()[:narrow]) for row in rows]
    return parse_rows(rows, numbers)


def vertices(numbers: list[int], rows: list[str]) -> tuple[Floats, Floats | None]:
    """Read x y z, and colors where all vertices have some."""
    if not rows:
        raise FileFormatError("no vertices: no line begins with 'v'")
    columns = table(numbers, rows, "vertex")
    return columns[:, :3], unit_colors(columns[:, 3:6]) if columns.shape[1] >= 6 else None


def _faces(numbers: list[int], rows: list[str], vertex_numbers: Indices, points: Floats) -> Indices:
    """Read the first numbers of `f 1/2/3 4//5 -1`."""
    rows = [re.sub(r"/\S*", "", row) for row in rows]
    return triangulate(*corners(numbers, rows, vertex_numbers, "vertex"), points)


def corners(
    numbers: list[int], rows: list[str], named: Indices, what: str, none: int | None = None
) -> tuple[Indices, Indices]:
    """Read indices that count from 1, or backwards from the last thing that was `named` on an earlier line.

    Returns them, counted from 0, and how many each row has. `none` stands for no index, which becomes −1.
    """
    flat, sizes = parse_ragged(rows, numbers)
    if len(sizes) and sizes.min() < 3:
        raise FileFormatError(
            f"line {numbers[int(sizes.argmin())]}: a face needs 3 corners, got {sizes.min()}"
        )
    given = flat.astype(np.int64)
    lines = np.repeat(np.array(numbers, dtype=np.int64), sizes)
    index = np.where(given < 0, given + np.searchsorted(named, lines), given - 1)
    wrong = ((index < 0) | (index >= len(named)) | (given != flat)) & (flat != none)
    if wrong.any():
        at = int(wrong.argmax())
        raise FileFormatError(
            f"line {lines[at]}: {what} {flat[at]:g} of a face; the file has 1 to {len(named)}"
        )
    return index, sizes


def write_obj(file: BinaryIO, contents: Contents) -> None:
    """Write vertices with all their digits, colors behind them, and faces."""
    digits = "%.17g" if contents.points.dtype == np.float64 else "%.9g"
    columns, pattern = contents.points, f"v {digits} {digits} {digits}"
    if contents.colors is not None:
        columns, pattern = np.hstack([columns, contents.colors]), f"{pattern} %.4f %.4f %.4f"
    np.savetxt(file, columns, pattern)
    if contents.faces is not None:
        np.savetxt(file, contents.faces + 1, "f %d %d %d")
