"""Text tables of points: xyz, txt, csv, pts, asc."""

import re
from typing import BinaryIO

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.contents import Contents, Floats, narrowest, unit_colors
from unrender.io.lines import parse_rows, split_lines


def read_xyz(data: bytes) -> Contents:
    """Read rows of x y z, then normals or colors, separated by blanks, commas or semicolons."""
    lines = [line.partition("#")[0].partition("//")[0] for line in split_lines(data)]
    if any(mark in data for mark in (b",", b";")):
        lines = [re.sub("[,;]", " ", line) for line in lines]
    filled = [i for i, line in enumerate(lines) if line and not line.isspace()]
    table = parse_rows([lines[i] for i in filled], [i + 1 for i in filled])
    return split_columns(table)


def split_columns(table: Floats) -> Contents:
    """Tell normals (unit length) and colors (0..1 or 0..255) behind the coordinates apart."""
    if table.ndim != 2 or table.shape[1] < 3 or len(table) == 0:
        raise FileFormatError(f"a table of points needs rows of 3 columns or more, this one is {table.shape}")
    normals = colors = None
    for start in (3, 6):
        extra = table[:, start : start + 3]
        if extra.shape[1] == 3:
            if normals is None and _are_directions(extra):
                normals = extra
            elif colors is None and _are_colors(extra):
                colors = unit_colors(extra)
    return Contents(narrowest(table[:, :3]), None, normals, colors)


def _are_directions(values: Floats) -> bool:
    lengths = np.linalg.norm(values, axis=1)
    return bool(((np.abs(lengths - 1) < 0.01) | (lengths == 0)).all() and lengths.any())


def _are_colors(values: Floats) -> bool:
    return bool((values >= 0).all() and (values <= 255).all())


def write_xyz(file: BinaryIO, contents: Contents) -> None:
    """Write x y z, then normals, then colors in 0..1, with all their digits."""
    digits = "%.17g" if contents.points.dtype == np.float64 else "%.9g"
    extras = [extra for extra in (contents.normals, contents.colors) if extra is not None]
    np.savetxt(file, np.hstack([contents.points, *extras]), [digits] * 3 + ["%.7g"] * 3 * len(extras))
