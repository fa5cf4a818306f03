"""Text tables of points: xyz, txt, csv, pts, asc."""

import re
from typing import BinaryIO, NamedTuple

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.contents import Contents, Floats, narrowest, unit_colors
from unrender.io.lines import is_number, parse_table, plain_text

_NAMES = {
    "normals": (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")),
    "colors": (("red", "green", "blue"), ("r", "g", "b")),
}


class Head(NamedTuple):
    """What the first line that is not blank tells of the rest."""

    size: int
    """Bytes before the first row."""
    names: list[str]
    num_rows: int
    delimiter: str | None


def read_xyz(data: bytes) -> Contents:
    """Read rows of x y z, then normals or colors, separated by blanks, commas or semicolons.

    Comments begin with # or //. A first line may name the columns, or say how many rows follow.
    """
    text = plain_text(data)
    if b"#" in text or b"//" in text:
        text = re.sub(rb"(#|//)[^\n]*", b"", text)
    head = _parse_head(text)
    table = parse_table(text[head.size :], text.count(b"\n", 0, head.size) + 1, head.delimiter)
    if head.num_rows > len(table):
        raise FileFormatError(
            f"its first line promises {head.num_rows} rows, {len(table)} follow; it is truncated"
        )
    named = {"x", "y", "z"} <= set(head.names) and len(head.names) == table.shape[1]
    return _by_name(table, head.names) if named else split_columns(table)


def _parse_head(text: bytes) -> Head:
    filled = [match for match, _ in zip(re.finditer(rb"[^\n]*\S[^\n]*\n?", text), range(2), strict=False)]
    if not filled:
        raise FileFormatError("no points: there are only blank lines and comments")
    delimiter = next((mark for mark in (";", ",") if mark.encode() in filled[-1][0]), None)
    words = [word.strip(" \t\"'").lower() for word in filled[0][0].decode("latin-1").strip().split(delimiter)]
    counts = len(words) == 1 and words[0].isdecimal()
    if not counts and any(is_number(word) for word in words):
        return Head(0, [], 0, delimiter)
    if len(filled) == 1:
        raise FileFormatError("no points behind its first line")
    return Head(filled[0].end(), [] if counts else words, int(words[0]) if counts else 0, delimiter)


def _by_name(table: Floats, names: list[str]) -> Contents:
    def pick(choices: tuple[tuple[str, ...], ...]) -> Floats | None:
        found = next((choice for choice in choices if set(choice) <= set(names)), None)
        return None if found is None else table[:, [names.index(name) for name in found]]

    points, colors = pick((("x", "y", "z"),)), pick(_NAMES["colors"])
    assert points is not None
    return Contents(
        narrowest(points), None, pick(_NAMES["normals"]), None if colors is None else unit_colors(colors)
    )


def split_columns(table: Floats) -> Contents:
    """Take x y z, then tell normals (unit length) and colors (0..1 or 0..255) apart by their values.

    A column between the coordinates and colors, as in pts files, is an intensity, which is skipped.
    """
    if table.ndim != 2 or table.shape[1] < 3 or len(table) == 0:
        raise FileFormatError(
            f"a table of points has rows of 3 columns or more, this one is {list(table.shape)}"
        )
    points, extras = table[:, :3], [table[:, i : i + 3] for i in range(3, table.shape[1] - 2, 3)][:2]
    if table.shape[1] == 7 and not _are_directions(extras[0]):
        extras = [table[:, 4:]]
    normals = next((extra for extra in extras if _are_directions(extra)), None)
    colors = next((extra for extra in extras if extra is not normals and _are_colors(extra)), None)
    if table.shape[1] == 6 and normals is None and colors is None:
        normals = extras[0]
    return Contents(narrowest(points), None, normals, None if colors is None else unit_colors(colors))


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
