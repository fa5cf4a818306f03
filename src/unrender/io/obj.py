"""Wavefront OBJ: one list of vertices, whatever groups, materials, textures and normals the faces also name.

Read here rather than by trimesh, which splits vertices along texture seams, reads face index 0 as the first
vertex, counts relative indices from the end of the file, and sorts the faces by material.
"""

import re
from typing import BinaryIO

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.contents import Contents, Floats, Indices, narrowest, unit_colors
from unrender.io.lines import parse_rows, split_lines
from unrender.io.polygons import triangulate


def read_obj(data: bytes) -> Contents:
    """Read vertices, colors behind them, faces, and, where there are no faces, one normal for each vertex."""
    rows: dict[str, list[str]] = {"v": [], "vn": [], "f": []}
    numbers: dict[str, list[int]] = {"v": [], "vn": [], "f": []}
    for number, line in enumerate(_joined_lines(data), 1):
        keyword, _, rest = line.strip().replace("\t", " ").partition(" ")
        if keyword in rows:
            rows[keyword].append(rest.partition("#")[0])
            numbers[keyword].append(number)
    points, colors = _vertices(rows["v"], numbers["v"])
    faces = _faces(rows["f"], numbers["f"], numbers["v"])
    normals = parse_rows(rows["vn"], numbers["vn"]) if not rows["f"] and rows["vn"] else None
    if normals is not None and normals.shape != points.shape:
        normals = None
    return Contents(narrowest(points), faces if len(faces) else None, normals, colors)


def _joined_lines(data: bytes) -> list[str]:
    """Split into lines; a backslash at the end joins the next, and leaves a blank one to keep the count."""
    lines = split_lines(data)
    for i in [i for i, line in enumerate(lines[:-1]) if line.endswith("\\")][::-1]:
        lines[i], lines[i + 1] = f"{lines[i][:-1]} {lines[i + 1]}", ""
    return lines


def _vertices(rows: list[str], numbers: list[int]) -> tuple[Floats, Floats | None]:
    if not rows:
        raise FileFormatError("no vertices: no line starts with 'v'")
    widths = [len(row.split()) for row in rows]
    if min(widths) < 3:
        raise FileFormatError(f"line {numbers[widths.index(min(widths))]}: a vertex needs 3 coordinates")
    if min(widths) != max(widths):
        rows = [" ".join(row.split()[: min(widths)]) for row in rows]
    table = parse_rows(rows, numbers)
    return table[:, :3], unit_colors(table[:, 3:6]) if min(widths) >= 6 else None


def _faces(rows: list[str], numbers: list[int], vertex_numbers: list[int]) -> Indices:
    """Read `f 1/2/3 4//5 -1`: the first numbers count from 1, or backwards from the last vertex so far."""
    corner_rows = [re.sub(r"/\S*", "", row).split() for row in rows]
    for row, number in zip(corner_rows, numbers, strict=True):
        if len(row) < 3:
            raise FileFormatError(f"line {number}: a face needs 3 corners")
        for word in row:
            if not word.removeprefix("-").isdecimal():
                raise FileFormatError(f"line {number}: {word[:40]!r} is no vertex index")
    sizes = np.array([len(row) for row in corner_rows], dtype=np.int64)
    corners = np.array([int(word) for row in corner_rows for word in row], dtype=np.int64)
    defined = np.repeat(np.searchsorted(vertex_numbers, numbers), sizes)
    index = np.where(corners < 0, corners + defined, corners - 1)
    wrong = (index < 0) | (index >= len(vertex_numbers))
    if wrong.any():
        at = int(wrong.argmax())
        line = np.repeat(numbers, sizes)[at]
        raise FileFormatError(
            f"line {line}: vertex {corners[at]}, where the file has 1 to {len(vertex_numbers)}"
        )
    return triangulate(index, sizes)


def write_obj(file: BinaryIO, contents: Contents) -> None:
    """Write vertices with all their digits, colors behind them, and faces."""
    digits = "%.17g" if contents.points.dtype == np.float64 else "%.9g"
    table, pattern = contents.points, f"v {digits} {digits} {digits}"
    if contents.colors is not None:
        table, pattern = np.hstack([table, contents.colors]), f"{pattern} %.4f %.4f %.4f"
    np.savetxt(file, table, pattern)
    if contents.faces is not None:
        np.savetxt(file, contents.faces + 1, "f %d %d %d")
