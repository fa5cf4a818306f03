"""STL, binary and ASCII: three corners for each triangle, joined where they are the same.

Written by trimesh, and read here: trimesh stumbles over a solid whose name has the word vertex in it, does not
say which line it cannot read, and takes text cut off behind its first solid for a whole file.
"""

import logging
from typing import Any, BinaryIO

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.contents import Contents, narrowest
from unrender.io.lines import parse_rows, split_lines
from unrender.io.weld import weld

_log = logging.getLogger("unrender")
_HEADER = 84
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def read_stl(data: bytes) -> Contents:
    """Read triangles; corners with the same coordinates become one vertex."""
    count = int.from_bytes(data[80:_HEADER], "little")
    size = _HEADER + count * _TRIANGLE.itemsize
    if len(data) == size or (_HEADER <= size <= len(data) and not _is_text(data)):
        corners = np.frombuffer(data, _TRIANGLE, count, _HEADER)["corners"].reshape(-1, 3)
    elif _is_text(data):
        corners = _read_text(data)
    else:
        raise FileFormatError(
            f"the header promises {count} triangles, {size} bytes, and the file has {len(data)}"
        )
    if len(corners) == 0:
        raise FileFormatError("no triangles")
    faces = np.arange(len(corners)).reshape(-1, 3)
    return weld(Contents(corners.astype(corners.dtype.newbyteorder("=")), faces))


def _is_text(data: bytes) -> bool:
    return data[:512].lstrip()[:5].lower() == b"solid" and b"\0" not in data


def _read_text(data: bytes) -> np.ndarray:
    lines = [line.strip().lower() for line in split_lines(data)]
    rows = [(i, line[6:]) for i, line in enumerate(lines, 1) if line.startswith("vertex")]
    facets = sum(line.startswith("endfacet") for line in lines)
    if not any(line.startswith("endsolid") for line in lines[-50:]):
        raise FileFormatError("the text does not end with 'endsolid'; the file is truncated")
    if len(rows) != 3 * facets:
        raise FileFormatError(f"{facets} facets need {3 * facets} vertices, the file has {len(rows)}")
    table = parse_rows([row for _, row in rows], [i for i, _ in rows])
    if rows and table.shape[1] != 3:
        raise FileFormatError(f"line {rows[0][0]}: a vertex needs 3 coordinates, got {table.shape[1]}")
    return narrowest(table)


def write_stl(file: BinaryIO, contents: Contents) -> None:
    """Write binary triangles; the format has neither colors nor doubles."""
    import trimesh

    if contents.points.dtype == np.float64 and narrowest(contents.points).dtype == np.float64:
        _log.warning("STL holds float32 only, which moves vertices so far from the origin; PLY holds float64")
    mesh: Any = trimesh.Trimesh(contents.points, contents.faces, process=False)
    file.write(mesh.export(file_type="stl"))
