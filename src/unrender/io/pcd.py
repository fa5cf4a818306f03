"""PCD, the format of the Point Cloud Library, read with pypcd4: text, binary and compressed.

pypcd4 does not detect truncated files, and rejects headers before version 0.7. The header is therefore checked against
the size of the file first, and passed on as version 0.7.
"""

import io
import re
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unrender.errors import FileFormatError
from unrender.io.geometry_data import Floats, GeometryData, narrow_dtype, normalize_colors
from unrender.io.lines import parse_table, plain_text, split_lines

if TYPE_CHECKING:
    from pypcd4 import MetaData

_MAX_LZF_RATIO = 128
"""LZF expands 3 bytes to at most 264."""
_MAX_COLUMNS = 10_000
_NORMALS = ("normal_x", "normal_y", "normal_z")
_COLORS = ("red", "green", "blue")
_ALIASES = {
    **{f"{prefix}{axis}": f"normal_{axis}" for prefix in ("n", "normal") for axis in "xyz"},
    **dict(zip("rgb", _COLORS, strict=True)),
}


def read_pcd(data: bytes) -> GeometryData:
    """Read x y z, normals and colors, as PCL or PDAL name them; organized point clouds are flattened row by row."""
    end = re.search(rb"^DATA[ \t]+(ascii|binary|binary_compressed)[ \t]*(\r\n|\n|\Z)", data, re.MULTILINE)
    if end is None:
        raise FileFormatError(
            "not a PCD file: the header has no line DATA ascii, binary or binary_compressed"
        )
    encoding, start = end[1].decode(), end.end()
    header = _parse_header(data[: end.start()], encoding)
    if encoding == "ascii":
        table = _read_text(data, header, start)
    else:
        _check_size(data, header, start)
        table = _read(data[start:], header)
    points = _stack(table, ("x", "y", "z"))
    if points is None:
        raise FileFormatError(f"the file has no fields x y z, only {', '.join(header.fields)[:80]}")
    points = narrow_dtype(points) if encoding == "ascii" else points
    return GeometryData(points, None, _stack(table, _NORMALS), _colors(table))


def _parse_header(text: bytes, encoding: str) -> "MetaData":
    """Read a header of any version; coordinates in text are read as doubles, to keep their precision."""
    import pypcd4

    words = {line[0]: line[1:] for line in map(str.split, split_lines(text)) if line}
    missing = {"FIELDS", "SIZE", "TYPE", "POINTS"} - words.keys()
    if missing:
        raise FileFormatError(f"the header has no line {', '.join(sorted(missing))}")
    counts = words.get("COUNT", ["1"] * len(words["FIELDS"]))
    if len({*map(len, (words["FIELDS"], words["SIZE"], words["TYPE"], counts))}) > 1:
        raise FileFormatError(
            "FIELDS, SIZE, TYPE and COUNT in the header should have the same number of entries"
        )
    if not {*words["TYPE"]} <= {"F", "I", "U"}:
        raise FileFormatError("TYPE in the header should be F, I or U")
    if min(map(int, counts), default=0) < 1 or sum(map(int, counts)) > _MAX_COLUMNS:
        raise FileFormatError(f"invalid header line: COUNT {' '.join(counts)[:60]}")
    num_points = int(words["POINTS"][0])
    if num_points <= 0:
        raise FileFormatError(f"the header declares {num_points} points")
    names = _field_names(words["FIELDS"])
    in_doubles = ("x", "y", "z") if encoding == "ascii" else ()
    sizes = [8 if name in in_doubles else int(size) for name, size in zip(names, words["SIZE"], strict=True)]
    return pypcd4.MetaData.model_validate(
        {"fields": names, "size": sizes, "type": words["TYPE"], "count": counts}
        | {"points": num_points, "width": num_points, "data": encoding}
    )


def _field_names(names: list[str]) -> list[str]:
    """Return PCL's names for those of other programs, such as PDAL's X, Y, Z, NormalX and Red."""
    known = [
        f"padding{i}" if name == "_" else re.sub(r"\W", "-", name).lower() for i, name in enumerate(names)
    ]
    known = [name if _ALIASES.get(name, name) in known else _ALIASES[name] for name in known]
    return [f"{name}-{i}" if name in known[:i] else name for i, name in enumerate(known)]


def _check_size(data: bytes, header: "MetaData", start: int) -> None:
    row, left = sum(np.multiply(header.size, header.count).tolist()), len(data) - start
    if header.data.value == "binary" and header.points * row > left:
        raise FileFormatError(
            f"byte {start}: truncated: the header declares {header.points} points of {row} bytes, "
            f"but only {left} bytes follow"
        )
    if header.data.value == "binary_compressed":
        packed, size = (int(x) for x in np.frombuffer(data, "<u4", 2, start))
        if size != header.points * row or size > _MAX_LZF_RATIO * packed or packed > left - 8:
            raise FileFormatError(
                f"byte {start}: damaged or truncated: {header.points} points of {row} bytes cannot be decompressed "
                f"from {packed} bytes to {size}; {left - 8} bytes follow"
            )


def _read_text(data: bytes, header: "MetaData", start: int) -> NDArray[Any]:
    """Read text, normalized to single blanks as pypcd4 expects."""
    text = plain_text(data[start:])
    tidy = re.sub(rb" ?\n ?", b"\n", re.sub(rb"[ \t]+", b" ", text)).strip()
    try:
        table = np.atleast_1d(_read(tidy, header)) if tidy else np.empty(0)
    except ValueError:
        parse_table(text, len(split_lines(data[:start])))  # raises an error that names the line
        raise
    if len(table) != header.points:
        columns = sum(header.count)
        raise FileFormatError(
            f"the header declares {header.points} rows of {columns} numbers, but the file has {len(table)} rows"
        )
    return table


def _read(body: bytes, header: "MetaData") -> NDArray[Any]:
    import pypcd4

    file = io.BytesIO(header.compose_header().encode() + body)
    table: NDArray[Any] = pypcd4.PointCloud.from_fileobj(file).pc_data
    return table


def _stack(table: NDArray[Any], names: tuple[str, ...]) -> Floats | None:
    fields = table.dtype.names or ()
    return np.stack([table[name] for name in names], axis=1) if {*names} <= {*fields} else None


def _colors(table: NDArray[Any]) -> Floats | None:
    """Unpack colors 0xAARRGGBB, which may be stored in a float field, or stack those of three fields."""
    separate = _stack(table, _COLORS)
    if separate is not None:
        return normalize_colors(separate)
    name = next((name for name in ("rgb", "rgba") if name in (table.dtype.names or ())), None)
    if name is None or table[name].itemsize != 4:
        return None
    return normalize_colors(np.ascontiguousarray(table[name])[:, None].view(np.uint8)[:, 2::-1])


def write_pcd(file: BinaryIO, geometry: GeometryData) -> None:
    """Write binary: positions in their own precision, normals, and packed colors."""
    import pypcd4

    columns = {name: geometry.points[:, i] for i, name in enumerate("xyz")}
    if geometry.normals is not None:
        columns |= {name: geometry.normals[:, i].astype(np.float32) for i, name in enumerate(_NORMALS)}
    if geometry.colors is not None:
        red, green, blue = np.rint(geometry.colors * 255).astype(np.uint32).T
        columns["rgb"] = red << 16 | green << 8 | blue
    types = [values.dtype for values in columns.values()]
    pypcd4.PointCloud.from_points([*columns.values()], [*columns], types).save(file)
