"""Point clouds as text tables: xyz, txt, csv, pts, asc."""

import logging
import re
from typing import BinaryIO, NamedTuple

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.geometry_data import Floats, GeometryData, narrow_dtype, normalize_colors
from unrender.io.lines import (
    is_number,
    parse_table,
    plain_text,
    refuse_split_numbers,
    with_decimal_points,
    without_trailing_separators,
)
from unrender.io.table_columns import Columns, columns_by_name, columns_by_value, has_angles

MAX_BYTES_CHECKED = 100_000
_SEPARATOR_LINE = re.compile(rb"\Asep=.[ \t]*\n", re.IGNORECASE)
"""First line of tables for Excel."""


class Head(NamedTuple):
    """The information of the first non-blank line."""

    size: int
    """Bytes before the first row."""
    names: list[str]
    num_rows: int
    delimiter: str | None


def read_xyz(data: bytes) -> GeometryData:
    """Read rows of points, with normals and colors, separated by blanks, commas or semicolons.

    Comments begin with # or //. The first line, which may be a comment, can hold column names, or the number of rows.
    Without names, columns are recognized by their values.
    """
    text, had_commas = with_decimal_points(_SEPARATOR_LINE.sub(b"", plain_text(data), count=1))
    if had_commas:
        logging.getLogger("unrender").warning("read commas as decimal points")
    comment = re.match(rb"\s*(?:#|//)([^\n]*)\n", text)
    if b"#" in text or b"//" in text:
        text = re.sub(rb"(#|//)[^\n]*", b"", text)
    text = without_trailing_separators(text)
    head = _parse_head(text)
    if head.delimiter == ",":
        refuse_split_numbers(text[head.size :][:MAX_BYTES_CHECKED])
    numeric = _numeric_columns(text[head.size :], head)
    if numeric is not None:
        head = head._replace(names=[head.names[i] for i in numeric])
    table = parse_table(text[head.size :], text.count(b"\n", 0, head.size) + 1, head.delimiter, numeric)
    if head.num_rows > len(table):
        raise FileFormatError(
            f"truncated: the first line declares {head.num_rows} rows, but {len(table)} follow"
        )
    if comment and not head.names:
        names = _words(comment[1], head.delimiter)
        if len(names) == table.shape[1] and columns_by_name(names):
            head = head._replace(names=names)
    geometry = split_columns(table, head.names, has_intensity=head.num_rows > 0)
    return geometry._replace(points=narrow_dtype(geometry.points))


def _parse_head(text: bytes) -> Head:
    filled = [match for match, _ in zip(re.finditer(rb"[^\n]*\S[^\n]*\n?", text), range(2), strict=False)]
    if not filled:
        raise FileFormatError("the file has no points, only blank lines and comments")
    delimiter = next((mark for mark in (";", ",") if mark.encode() in filled[-1][0]), None)
    words = _words(filled[0][0], delimiter)
    counts = len(words) == 1 and words[0].isdecimal()
    if not counts and any(is_number(word) for word in words):
        return Head(0, [], 0, delimiter)
    if len(filled) == 1:
        raise FileFormatError("the file has no points after its first line")
    return Head(filled[0].end(), [] if counts else words, int(words[0]) if counts else 0, delimiter)


def _numeric_columns(rows: bytes, head: Head) -> list[int] | None:
    """Return the columns that hold numbers, by the first row; None for all, or if the columns have no names.

    Without coordinates among them, all are returned, so that what is wrong is found when they are read.
    """
    first = re.search(rb"[^\n]*\S[^\n]*", rows)
    if first is None or head.delimiter is None or not head.names:
        return None
    words = _words(first[0], head.delimiter)
    numeric = [i for i, word in enumerate(words) if is_number(word)]
    if len(words) != len(head.names) or len(numeric) == len(words):
        return None
    return numeric if columns_by_name([head.names[i] for i in numeric]) else None


def _words(line: bytes, delimiter: str | None) -> list[str]:
    try:
        text = line.decode().strip()
    except UnicodeDecodeError:
        text = line.decode("latin-1").strip()
    words = text.split(delimiter) if delimiter is None or delimiter in text else text.split()
    return [word.strip(" \t\"'") for word in words]


def split_columns(
    table: Floats, names: list[str] | None = None, *, has_intensity: bool = False
) -> GeometryData:
    """Split a table into points, normals and colors, by the names of the columns, if any, else by their values.

    Raises FileFormatError for names without coordinates, and where values show that the first columns hold none.
    """
    if table.ndim != 2 or table.shape[1] < 3 or len(table) == 0:
        raise FileFormatError(
            f"a table of points should have at least 3 columns, got shape {list(table.shape)}"
        )
    columns = _named_columns(names or [], table.shape[1])
    if columns is None:
        columns = columns_by_value(table, has_intensity=has_intensity)
    points, normals, colors = (
        None if indices is None else table[:, indices]
        for indices in (columns.points, columns.normals, columns.colors)
    )
    assert points is not None
    return GeometryData(
        points,
        None,
        normals,
        None if colors is None else normalize_colors(colors),
        columns=columns.describe(table.shape[1]) if table.shape[1] > 3 or columns.names else "",
    )


def _named_columns(names: list[str], count: int) -> Columns | None:
    """Find columns by their names; None if there are none, or if the first line is a text about something else.

    Three columns of unknown names are taken as x y z.
    """
    found = columns_by_name(names)
    if found and len(names) != count:
        raise FileFormatError(f"the first line names {len(names)} columns, but the rows have {count}")
    if has_angles(names):
        raise FileFormatError("latitude and longitude are angles; convert them to x, y and z in meters")
    if found is None and len(names) == count > 3:
        raise FileFormatError(
            f"none of the columns {', '.join(names)[:80]} are coordinates; name three of them x, y and z in the first "
            "line"
        )
    return Columns((0, 1, 2), names=names) if found is None and len(names) == count else found


def write_xyz(file: BinaryIO, geometry: GeometryData) -> None:
    """Write x y z, then normals, then colors in 0..1, in full precision."""
    digits = "%.17g" if geometry.points.dtype == np.float64 else "%.9g"
    extras = [extra for extra in (geometry.normals, geometry.colors) if extra is not None]
    np.savetxt(file, np.hstack([geometry.points, *extras]), [digits] * 3 + ["%.7g"] * 3 * len(extras))
