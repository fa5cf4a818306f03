"""OFF, the Object File Format of Geomview, as text.

Not read by trimesh, which drops normals, vertex colors and invalid faces, and truncates faces with their line.
"""

import re

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.geometry_data import GeometryData, narrow_dtype, normalize_colors
from unrender.io.lines import parse_ragged, parse_rows, split_lines
from unrender.io.polygons import triangulate


def read_off(data: bytes) -> GeometryData:
    """Read vertices with normals (NOFF) and colors (COFF), and faces; face colors are ignored."""
    lines = [(i, line.partition("#")[0]) for i, line in enumerate(split_lines(data), 1)]
    lines = [(i, line) for i, line in lines if line.strip()]
    keyword = re.match(r"\s*(C?)(N?)OFF", lines[0][1]) if lines else None
    if keyword is None:
        raise FileFormatError("not an OFF file: it should begin with OFF, COFF, NOFF or CNOFF")
    lines[0] = (lines[0][0], lines[0][1][keyword.end() :])  # the counts may follow on the same line
    lines = lines if lines[0][1].strip() else lines[1:]
    num_vertices, num_faces = _counts(lines)
    numbers, rows = [i for i, _ in lines[1:]], [line for _, line in lines[1:]]
    end = num_vertices + num_faces
    table = parse_rows(rows[:num_vertices], numbers[:num_vertices])
    has_normals, has_colors = bool(keyword[2]), bool(keyword[1])
    width = 3 + 3 * has_normals + 3 * has_colors
    if table.shape[1] < width:
        raise FileFormatError(
            f"line {numbers[0]}: a vertex should have {width} numbers, got {table.shape[1]}"
        )
    points = narrow_dtype(table[:, :3])
    return GeometryData(
        points,
        _faces(rows[num_vertices:end], numbers[num_vertices:end], points) if num_faces else None,
        table[:, 3:6] if has_normals else None,
        normalize_colors(table[:, width - 3 : width]) if has_colors else None,
    )


def _counts(lines: list[tuple[int, str]]) -> tuple[int, int]:
    words = lines[0][1].split() if lines else []
    if len(words) < 2 or not (words[0].isdecimal() and words[1].isdecimal()):
        raise FileFormatError(
            f"line {lines[0][0] if lines else 1}: expected the numbers of vertices and faces"
        )
    num_vertices, num_faces = int(words[0]), int(words[1])
    if num_vertices == 0:
        raise FileFormatError("the file has no vertices")
    if num_vertices + num_faces > len(lines) - 1:
        raise FileFormatError(
            f"truncated: the header declares {num_vertices} vertices and {num_faces} faces, "
            f"but only {len(lines) - 1} lines follow"
        )
    return num_vertices, num_faces


def _faces(rows: list[str], numbers: list[int], points: np.ndarray) -> np.ndarray:
    """Read faces such as `3 0 1 2`, with or without a trailing color."""
    flat, widths = parse_ragged(rows, numbers)
    starts = np.cumsum(widths) - widths
    sizes = flat[starts]
    wrong = np.flatnonzero((sizes < 3) | (sizes >= widths) | (sizes % 1 != 0))
    if len(wrong):
        raise FileFormatError(
            f"line {numbers[wrong[0]]}: expected the number of corners, at least 3, and their indices"
        )
    sizes = sizes.astype(np.int64)
    step = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    corners = flat[np.repeat(starts + 1, sizes) + step]
    wrong = np.flatnonzero((corners < 0) | (corners >= len(points)) | (corners % 1 != 0))
    if len(wrong):
        line = np.repeat(numbers, sizes)[wrong[0]]
        raise FileFormatError(
            f"line {line}: a face references vertex {corners[wrong[0]]:g}, but the file has 0 to {len(points) - 1}"
        )
    return triangulate(corners.astype(np.int64), sizes, points)
