"""Text files of laser scanners: PTS and PTX of Leica, and ESRI's ASCII grids."""

import re

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.geometry_data import Floats, GeometryData, narrow_dtype
from unrender.io.lines import is_number, parse_table, plain_text
from unrender.io.xyz import read_xyz, split_columns

PTX_HEADER = 10
"""Lines before the points of a PTX scan: its two sizes, the scanner's pose, and the transform to the world."""
GRID_KEYS = ("ncols", "nrows", "cellsize")


def read_pts(data: bytes) -> GeometryData:
    """Read x y z, intensity and colors of one or several scans, each preceded by its number of points."""
    text = plain_text(data)
    counts = list(re.finditer(rb"^[ \t]*(\d+)[ \t]*$", text, re.MULTILINE))
    if len(counts) < 2:
        return read_xyz(data)
    ends = [*(match.start() for match in counts[1:]), len(text)]
    rows = []
    for match, end in zip(counts, ends, strict=True):
        scan = text[match.end() : end].strip()
        num_rows = scan.count(b"\n") + 1 if scan else 0
        if num_rows < int(match[1]):
            line = text.count(b"\n", 0, match.start()) + 1
            raise FileFormatError(
                f"line {line}: a scan of {int(match[1])} points, but {num_rows} rows follow"
            )
        rows.append(scan)
    total = sum(int(match[1]) for match in counts)
    return read_xyz(b"\n".join([str(total).encode(), *filter(None, rows)]))


def read_ptx(data: bytes) -> GeometryData:
    """Read the points of all scans in world coordinates, without rays that returned nothing (0, 0, 0)."""
    lines = plain_text(data).rstrip(b"\n").split(b"\n")
    parts, start = [], 0
    while start < len(lines):
        if start + PTX_HEADER > len(lines):
            raise FileFormatError(f"line {start + 1}: a scan should begin with {PTX_HEADER} lines; truncated")
        columns, rows = (_count(lines[start + i], start + i + 1) for i in (0, 1))
        pose = [parse_table(lines[start + i], start + i + 1) for i in range(2, PTX_HEADER)]
        if [line.shape[1] for line in pose] != [3] * 4 + [4] * 4:
            raise FileFormatError(
                f"line {start + 3}: expected 4 lines of 3 numbers and 4 of 4: the scanner's pose"
            )
        start += PTX_HEADER
        end = start + columns * rows
        if end > len(lines):
            raise FileFormatError(
                f"truncated: a scan of {columns} × {rows} points, but {len(lines) - start} rows follow"
            )
        if end > start:
            parts.append(_place(parse_table(b"\n".join(lines[start:end]), start + 1), np.vstack(pose[4:])))
        start = end
    return _join(parts)


def _count(line: bytes, number: int) -> int:
    word = line.strip().decode("latin-1")
    if not word.isdecimal():
        raise FileFormatError(f"line {number}: expected a number of points, got {word[:40]!r}")
    return int(word)


def _place(table: Floats, world_from_scanner_rows: Floats) -> GeometryData:
    """Drop rays without a return, and transform the others; the matrix acts on row vectors."""
    if table.shape[1] < 3:
        raise FileFormatError(f"points should have 3 numbers at least, got {table.shape[1]}")
    table = table[(table[:, :3] != 0).any(axis=1)]
    if not len(table):
        return GeometryData(np.empty((0, 3)))
    found = split_columns(table, has_intensity=True)
    points = table[:, :3] @ world_from_scanner_rows[:3, :3] + world_from_scanner_rows[3, :3]
    return GeometryData(points, None, None, found.colors)


def _join(parts: list[GeometryData]) -> GeometryData:
    parts = [part for part in parts if len(part.points)]
    if not parts:
        raise FileFormatError("the file has no points")
    colors = [part.colors for part in parts if part.colors is not None]
    return GeometryData(
        narrow_dtype(np.concatenate([part.points for part in parts])),
        None,
        None,
        np.concatenate(colors) if len(colors) == len(parts) else None,
    )


def read_asc(data: bytes) -> GeometryData:
    """Read an ESRI grid of heights as one point for each cell, or else rows of x y z."""
    text = plain_text(data)
    if text.lstrip()[:5].lower() != b"ncols":
        return read_xyz(data)
    header: dict[str, float] = {}
    for match in re.finditer(rb"[^\n]*\n?", text):
        words = match[0].decode("latin-1").split()
        if len(words) != 2 or is_number(words[0]) or not is_number(words[1]):
            break
        header[words[0].lower()] = float(words[1])
    if not all(header.get(key, 0) > 0 for key in GRID_KEYS):
        raise FileFormatError(f"the header of a grid should have positive {', '.join(GRID_KEYS)}")
    table = parse_table(text[match.start() :], text.count(b"\n", 0, match.start()) + 1)
    shape = (int(header["nrows"]), int(header["ncols"]))
    if table.shape != shape:
        raise FileFormatError(
            f"the header declares {list(shape)} heights, but the file has {list(table.shape)}"
        )
    cell = header["cellsize"]
    left, low = (
        header.get(f"{axis}llcenter", header.get(f"{axis}llcorner", 0.0) + cell / 2) for axis in "xy"
    )
    rows, columns = np.nonzero(table != header.get("nodata_value", -9999.0))
    if not len(rows):
        raise FileFormatError("all heights of the grid are missing")
    points = np.stack(
        [left + columns * cell, low + (shape[0] - 1 - rows) * cell, table[rows, columns]], axis=1
    )
    return GeometryData(narrow_dtype(points))
