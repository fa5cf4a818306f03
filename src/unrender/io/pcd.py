"""PCD, the Point Cloud Library's format: text, binary and compressed, with all header versions.

pypcd4 takes a truncated file for a smaller one and refuses headers before version 0.7, so that only its
decompressor (liblzf) is used.
"""

import re
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unrender.errors import FileFormatError
from unrender.io.contents import Contents, Floats, narrowest, unit_colors
from unrender.io.lines import parse_table, plain_text, split_lines

_MAX_LZF_RATIO = 128
"""LZF writes at most 264 bytes for 3."""
_NORMALS = ("normal_x", "normal_y", "normal_z")


class Header(NamedTuple):
    """What the header says of the numbers behind it."""

    encoding: str
    num_points: int
    row: np.dtype[Any]
    start: int
    """Byte where the numbers begin."""


def read_pcd(data: bytes) -> Contents:
    """Read x y z, normals and packed colors; an organised cloud is read row by row."""
    header = _parse_header(data)
    readers = {"ascii": _read_text, "binary": _read_binary, "binary_compressed": _read_compressed}
    fields = readers[header.encoding](data, header)
    if not {"x", "y", "z"} <= fields.keys():
        raise FileFormatError(f"no fields x y z among {', '.join(fields)[:80]}")
    points = np.hstack([fields[name] for name in "xyz"])
    return Contents(
        narrowest(points) if header.encoding == "ascii" else points,
        None,
        np.hstack([fields[name] for name in _NORMALS]) if fields.keys() >= set(_NORMALS) else None,
        _colors(fields),
    )


def _parse_header(data: bytes) -> Header:
    end = re.search(rb"^DATA[ \t]+(ascii|binary|binary_compressed)[ \t]*(\r\n|\n|\Z)", data, re.MULTILINE)
    if end is None:
        raise FileFormatError(
            "not a PCD file: its header has no line DATA ascii, binary or binary_compressed"
        )
    lines = [line.split() for line in split_lines(data[: end.start()])]
    words = {line[0]: line[1:] for line in lines if line}
    missing = {"FIELDS", "SIZE", "TYPE", "POINTS"} - words.keys()
    if missing:
        raise FileFormatError(f"the header has no line {', '.join(sorted(missing))}")
    counts = [int(count) for count in words.get("COUNT", ["1"] * len(words["FIELDS"]))]
    if min(counts, default=0) < 1 or max(counts) > len(data):
        raise FileFormatError(f"the header cannot say COUNT {' '.join(words['COUNT'])[:60]}")
    columns = zip(words["FIELDS"], words["TYPE"], words["SIZE"], counts, strict=True)
    row = np.dtype(
        [
            (f"padding {i}" if name == "_" else name, f"<{kind.lower()}{size}", (count,))
            for i, (name, kind, size, count) in enumerate(columns)
        ]
    )
    if any(row[name].base.kind not in "fiu" for name in row.names or ()):
        raise FileFormatError("the header's TYPE should be F, I or U")
    num_points = int(words["POINTS"][0])
    if num_points <= 0:
        raise FileFormatError(f"{num_points} points")
    return Header(end[1].decode(), num_points, row, end.end())


def _read_text(data: bytes, header: Header) -> dict[str, NDArray[Any]]:
    table = parse_table(plain_text(data[header.start :]), len(split_lines(data[: header.start])))
    columns = [header.row[name].shape[0] for name in header.row.names or ()]
    if table.shape != (header.num_points, sum(columns)):
        raise FileFormatError(
            f"the header promises {header.num_points} rows of {sum(columns)} numbers, "
            f"and the file holds {len(table)} of {table.shape[1]}"
        )
    parts = np.split(table, np.cumsum(columns)[:-1], axis=1)
    return {
        name: part if name in ("x", "y", "z") else part.astype(header.row[name].base)
        for name, part in zip(header.row.names or (), parts, strict=True)
    }


def _read_binary(data: bytes, header: Header) -> dict[str, NDArray[Any]]:
    left = len(data) - header.start
    if header.num_points * header.row.itemsize > left:
        raise FileFormatError(
            f"byte {header.start}: the header promises {header.num_points} points of {header.row.itemsize} "
            f"bytes, {left} bytes are left; the file is truncated"
        )
    rows = np.frombuffer(data, header.row, header.num_points, header.start)
    return {name: rows[name] for name in header.row.names or ()}


def _read_compressed(data: bytes, header: Header) -> dict[str, NDArray[Any]]:
    """Read fields that follow one another, each of all points."""
    import lzf  # type: ignore[import-not-found]

    packed, size = (int(x) for x in np.frombuffer(data, "<u4", 2, header.start))
    if size != header.num_points * header.row.itemsize or size > _MAX_LZF_RATIO * packed:
        raise FileFormatError(
            f"byte {header.start}: {header.num_points} points of {header.row.itemsize} bytes cannot "
            f"unpack from {packed} bytes to {size}"
        )
    unpacked = lzf.decompress(data[header.start + 8 :][:packed], size)
    if unpacked is None or len(unpacked) != size:
        raise FileFormatError(f"byte {header.start + 8}: the compressed numbers are damaged or cut off")
    fields, offset = {}, 0
    for name in header.row.names or ():
        column = np.frombuffer(
            unpacked, header.row[name].base, header.num_points * header.row[name].shape[0], offset
        )
        fields[name] = column.reshape(header.num_points, -1)
        offset += column.nbytes
    return fields


def _colors(fields: dict[str, NDArray[Any]]) -> Floats | None:
    """Unpack the bytes 0xAARRGGBB, which may stand in a field of floats."""
    packed = fields.get("rgb", fields.get("rgba"))
    if packed is None or packed.dtype.itemsize != 4:
        return None
    return unit_colors(np.ascontiguousarray(packed[:, :1]).view(np.uint8)[:, 2::-1])


def write_pcd(file: BinaryIO, contents: Contents) -> None:
    """Write binary: positions in their own precision, normals, packed colors."""
    points = contents.points
    columns = [(name, "F", points[:, i]) for i, name in enumerate("xyz")]
    if contents.normals is not None:
        columns += [(name, "F", contents.normals[:, i].astype(np.float32)) for i, name in enumerate(_NORMALS)]
    if contents.colors is not None:
        red, green, blue = np.rint(contents.colors * 255).astype(np.uint32).T
        columns += [("rgb", "U", red << 16 | green << 8 | blue)]
    rows = np.empty(len(points), [(name, values.dtype.newbyteorder("<")) for name, _, values in columns])
    for name, _, values in columns:
        rows[name] = values
    header = {
        "VERSION": "0.7",
        "FIELDS": " ".join(name for name, _, _ in columns),
        "SIZE": " ".join(str(values.dtype.itemsize) for _, _, values in columns),
        "TYPE": " ".join(kind for _, kind, _ in columns),
        "COUNT": " ".join("1" for _ in columns),
        "WIDTH": len(points),
        "HEIGHT": 1,
        "VIEWPOINT": "0 0 0 1 0 0 0",
        "POINTS": len(points),
        "DATA": "binary",
    }
    file.write("".join(f"{key} {value}\n" for key, value in header.items()).encode())
    file.write(rows.tobytes())
