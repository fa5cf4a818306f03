"""STL, binary and ASCII: three corners per triangle; duplicate vertices are merged.

Written with trimesh but not read by it: trimesh fails for a solid with the word vertex in its name, does not report
line numbers, and does not detect text truncated after the first solid.
"""

import logging
from typing import Any, BinaryIO

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.geometry_data import GeometryData, narrow_dtype
from unrender.io.lines import parse_rows, split_lines
from unrender.io.weld import weld

_log = logging.getLogger("unrender")
_HEADER = 84
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def read_stl(data: bytes) -> GeometryData:
    """Read triangles; corners with equal coordinates are merged to one vertex."""
    count = int.from_bytes(data[80:_HEADER], "little")
    size = _HEADER + count * _TRIANGLE.itemsize
    if len(data) == size or (_HEADER <= size <= len(data) and not _is_text(data)):
        corners = np.frombuffer(data, _TRIANGLE, count, _HEADER)["corners"].reshape(-1, 3)
    elif _is_text(data):
        corners = _read_text(data)
    else:
        raise FileFormatError(
            f"truncated: the header declares {count} triangles, {size} bytes, but the file has {len(data)}"
        )
    if len(corners) == 0:
        raise FileFormatError("the file has no triangles")
    faces = np.arange(len(corners)).reshape(-1, 3)
    return weld(GeometryData(corners.astype(corners.dtype.newbyteorder("=")), faces))


def _is_text(data: bytes) -> bool:
    return data[:512].lstrip()[:5].lower() == b"solid" and b"\0" not in data


def _read_text(data: bytes) -> np.ndarray:
    lines = [line.strip().lower() for line in split_lines(data)]
    rows = [(i, line[6:]) for i, line in enumerate(lines, 1) if line.startswith("vertex")]
    facets = sum(line.startswith("endfacet") for line in lines)
    if not any(line.startswith("endsolid") for line in lines[-50:]):
        raise FileFormatError("truncated: the text does not end with 'endsolid'")
    if len(rows) != 3 * facets:
        raise FileFormatError(f"{facets} facets should have {3 * facets} vertices, got {len(rows)}")
    table = parse_rows([row for _, row in rows], [i for i, _ in rows])
    if rows and table.shape[1] != 3:
        raise FileFormatError(f"line {rows[0][0]}: a vertex should have 3 coordinates, got {table.shape[1]}")
    return narrow_dtype(table)


def write_stl(file: BinaryIO, geometry: GeometryData) -> None:
    """Write binary triangles; the format supports neither colors nor float64."""
    import trimesh

    if geometry.points.dtype == np.float64 and narrow_dtype(geometry.points).dtype == np.float64:
        _log.warning(
            "STL stores float32, which loses precision for vertices far from the origin; use PLY to keep float64"
        )
    mesh: Any = trimesh.Trimesh(geometry.points, geometry.faces, process=False)
    file.write(mesh.export(file_type="stl"))
