"""PCD, the Point Cloud Library's format, through pypcd4: text, binary and compressed.

pypcd4 takes a truncated file for a smaller one, and refuses headers before version 0.7. So a header of any
version is held against the size of the file first, and handed over as one of version 0.7.
"""

import io
import re
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unrender.errors import FileFormatError
from unrender.io.contents import Contents, Floats, narrowest, unit_colors
from unrender.io.lines import parse_table, plain_text, split_lines

if TYPE_CHECKING:
    from pypcd4 import MetaData

_MAX_LZF_RATIO = 128
"""LZF writes at most 264 bytes for 3."""
_MAX_COLUMNS = 10_000
_NORMALS = ("normal_x", "normal_y", "normal_z")


def read_pcd(data: bytes) -> Contents:
    """Read x y z, normals and packed colors; an organised cloud is read row by row."""
    end = re.search(rb"^DATA[ \t]+(ascii|binary|binary_compressed)[ \t]*(\r\n|\n|\Z)", data, re.MULTILINE)
    if end is None:
        raise FileFormatError(
            "not a PCD file: its header has no line DATA ascii, binary or binary_compressed"
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
        raise FileFormatError(f"no fields x y z among {', '.join(header.fields)[:80]}")
    points = narrowest(points) if encoding == "ascii" else points
    return Contents(points, None, _stack(table, _NORMALS), _colors(table))


def _parse_header(text: bytes, encoding: str) -> "MetaData":
    """Read a header of any version; coordinates in text become doubles, which keeps their digits."""
    import pypcd4

    words = {line[0]: line[1:] for line in map(str.split, split_lines(text)) if line}
    missing = {"FIELDS", "SIZE", "TYPE", "POINTS"} - words.keys()
    if missing:
        raise FileFormatError(f"the header has no line {', '.join(sorted(missing))}")
    counts = words.get("COUNT", ["1"] * len(words["FIELDS"]))
    if len({*map(len, (words["FIELDS"], words["SIZE"], words["TYPE"], counts))}) > 1:
        raise FileFormatError("the header's FIELDS, SIZE, TYPE and COUNT should be equally many")
    if not {*words["TYPE"]} <= {"F", "I", "U"}:
        raise FileFormatError("the header's TYPE should be F, I or U")
    if min(map(int, counts), default=0) < 1 or sum(map(int, counts)) > _MAX_COLUMNS:
        raise FileFormatError(f"the header cannot say COUNT {' '.join(counts)[:60]}")
    num_points = int(words["POINTS"][0])
    if num_points <= 0:
        raise FileFormatError(f"{num_points} points")
    names = [
        f"padding{i}" if name == "_" else re.sub(r"\W", "-", name) for i, name in enumerate(words["FIELDS"])
    ]
    in_doubles = ("x", "y", "z") if encoding == "ascii" else ()
    sizes = [8 if name in in_doubles else int(size) for name, size in zip(names, words["SIZE"], strict=True)]
    return pypcd4.MetaData.model_validate(
        {"fields": names, "size": sizes, "type": words["TYPE"], "count": counts}
        | {"points": num_points, "width": num_points, "data": encoding}
    )


def _check_size(data: bytes, header: "MetaData", start: int) -> None:
    row, left = sum(np.multiply(header.size, header.count).tolist()), len(data) - start
    if header.data.value == "binary" and header.points * row > left:
        raise FileFormatError(
            f"byte {start}: the header promises {header.points} points of {row} bytes, "
            f"{left} bytes are left; the file is truncated"
        )
    if header.data.value == "binary_compressed":
        packed, size = (int(x) for x in np.frombuffer(data, "<u4", 2, start))
        if size != header.points * row or size > _MAX_LZF_RATIO * packed or packed > left - 8:
            raise FileFormatError(
                f"byte {start}: {header.points} points of {row} bytes cannot unpack from {packed} bytes to "
                f"{size}; {left - 8} bytes are left, the numbers are damaged or cut off"
            )


def _read_text(data: bytes, header: "MetaData", start: int) -> NDArray[Any]:
    """Read numbers, separated by one blank, as pypcd4 expects them."""
    text = plain_text(data[start:])
    tidy = re.sub(rb" ?\n ?", b"\n", re.sub(rb"[ \t]+", b" ", text)).strip()
    try:
        table = np.atleast_1d(_read(tidy, header)) if tidy else np.empty(0)
    except ValueError:
        parse_table(text, len(split_lines(data[:start])))  # names the line
        raise
    if len(table) != header.points:
        columns = sum(header.count)
        raise FileFormatError(
            f"the header promises {header.points} rows of {columns} numbers, "
            f"and the file holds {len(table)} of {columns}"
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
    """Unpack the bytes 0xAARRGGBB, which may stand in a field of floats."""
    name = next((name for name in ("rgb", "rgba") if name in (table.dtype.names or ())), None)
    if name is None or table[name].itemsize != 4:
        return None
    return unit_colors(np.ascontiguousarray(table[name])[:, None].view(np.uint8)[:, 2::-1])


def write_pcd(file: BinaryIO, contents: Contents) -> None:
    """Write binary: positions in their own precision, normals, packed colors."""
    import pypcd4

    columns = {name: contents.points[:, i] for i, name in enumerate("xyz")}
    if contents.normals is not None:
        columns |= {name: contents.normals[:, i].astype(np.float32) for i, name in enumerate(_NORMALS)}
    if contents.colors is not None:
        red, green, blue = np.rint(contents.colors * 255).astype(np.uint32).T
        columns["rgb"] = red << 16 | green << 8 | blue
    types = [values.dtype for values in columns.values()]
    pypcd4.PointCloud.from_points([*columns.values()], [*columns], types).save(file)
