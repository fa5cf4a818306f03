"""Point clouds as text tables: xyz, txt, csv, pts, asc."""

import re
from typing import BinaryIO, NamedTuple

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.geometry_data import Floats, GeometryData, narrow_dtype, normalize_colors
from unrender.io.lines import is_number, parse_table, plain_text

_NAMES = {
    "normals": (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")),
    "colors": (("red", "green", "blue"), ("r", "g", "b")),
}


class Head(NamedTuple):
    """The information of the first non-blank line."""

    size: int
    """Bytes before the first row."""
    names: list[str]
    num_rows: int
    delimiter: str | None


def read_xyz(data: bytes) -> GeometryData:
    """Read rows of x y z, then normals or colors, separated by blanks, commas or semicolons.

    Comments begin with # or //. The first line may hold column names, or the number of rows.
    """
    text = plain_text(data)
    if b"#" in text or b"//" in text:
        text = re.sub(rb"(#|//)[^\n]*", b"", text)
    head = _parse_head(text)
    table = parse_table(text[head.size :], text.count(b"\n", 0, head.size) + 1, head.delimiter)
    if head.num_rows > len(table):
        raise FileFormatError(
            f"truncated: the first line declares {head.num_rows} rows, but {len(table)} follow"
        )
    named = {"x", "y", "z"} <= set(head.names) and len(head.names) == table.shape[1]
    return _by_name(table, head.names) if named else split_columns(table)


def _parse_head(text: bytes) -> Head:
    filled = [match for match, _ in zip(re.finditer(rb"[^\n]*\S[^\n]*\n?", text), range(2), strict=False)]
    if not filled:
        raise FileFormatError("the file has no points, only blank lines and comments")
    delimiter = next((mark for mark in (";", ",") if mark.encode() in filled[-1][0]), None)
    words = [word.strip(" \t\"'").lower() for word in filled[0][0].decode("latin-1").strip().split(delimiter)]
    counts = len(words) == 1 and words[0].isdecimal()
    if not counts and any(is_number(word) for word in words):
        return Head(0, [], 0, delimiter)
    if len(filled) == 1:
        raise FileFormatError("the file has no points after its first line")
    return Head(filled[0].end(), [] if counts else words, int(words[0]) if counts else 0, delimiter)


def _by_name(table: Floats, names: list[str]) -> GeometryData:
    def pick(choices: tuple[tuple[str, ...], ...]) -> Floats | None:
        found = next((choice for choice in choices if set(choice) <= set(names)), None)
        return None if found is None else table[:, [names.index(name) for name in found]]

    points, colors = pick((("x", "y", "z"),)), pick(_NAMES["colors"])
    assert points is not None
    return GeometryData(
        narrow_dtype(points),
        None,
        pick(_NAMES["normals"]),
        None if colors is None else normalize_colors(colors),
    )


def split_columns(table: Floats) -> GeometryData:
    """Split columns into x y z, and normals (unit length) or colors (0..1 or 0..255), distinguished by their values.

    A single column between coordinates and colors, as in pts files, is an intensity, and ignored.
    """
    if table.ndim != 2 or table.shape[1] < 3 or len(table) == 0:
        raise FileFormatError(
            f"a table of points should have at least 3 columns, got shape {list(table.shape)}"
        )
    points, extras = table[:, :3], [table[:, i : i + 3] for i in range(3, table.shape[1] - 2, 3)][:2]
    if table.shape[1] == 7 and not _are_directions(extras[0]):
        extras = [table[:, 4:]]
    normals = next((extra for extra in extras if _are_directions(extra)), None)
    colors = next((extra for extra in extras if extra is not normals and _are_colors(extra)), None)
    if table.shape[1] == 6 and normals is None and colors is None:
        normals = extras[0]
    return GeometryData(
        narrow_dtype(points), None, normals, None if colors is None else normalize_colors(colors)
    )


def _are_directions(values: Floats) -> bool:
    lengths = np.linalg.norm(values, axis=1)
    return bool(((np.abs(lengths - 1) < 0.01) | (lengths == 0)).all() and lengths.any())


def _are_colors(values: Floats) -> bool:
    return bool((values >= 0).all() and (values <= 255).all())


def write_xyz(file: BinaryIO, geometry: GeometryData) -> None:
    """Write x y z, then normals, then colors in 0..1, in full precision."""
    digits = "%.17g" if geometry.points.dtype == np.float64 else "%.9g"
    extras = [extra for extra in (geometry.normals, geometry.colors) if extra is not None]
    np.savetxt(file, np.hstack([geometry.points, *extras]), [digits] * 3 + ["%.7g"] * 3 * len(extras))
