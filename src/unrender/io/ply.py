"""Stanford PLY, ASCII and binary, with doubles and polygons of mixed sizes.

Not read by trimesh, which rejects binary polygons of mixed sizes, does not detect truncated text, and writes positions
as float32 only; the license of plyfile, the GPL, is not compatible with ours.

Every count in the header is checked against the size of the file before memory is allocated.
"""

import re
from itertools import islice
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unrender.errors import FileFormatError
from unrender.io.geometry_data import Floats, GeometryData, Indices, narrow_dtype, normalize_colors
from unrender.io.lines import parse_ragged, parse_rows, split_lines
from unrender.io.polygons import triangulate

ByteOrder = Literal["=", "<", ">"]
_ORDERS: dict[str, ByteOrder] = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "int64": "i8", "uint64": "u8",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_CORNERS = ("vertex_indices", "vertex_index")
_NORMALS = (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"))
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Property(NamedTuple):
    """A scalar in each row of an element, or a list preceded by its length."""

    name: str
    dtype: np.dtype[Any]
    length_dtype: np.dtype[Any] | None = None


class Element(NamedTuple):
    """A table of the file, with the number of rows declared in the header."""

    name: str
    num_rows: int
    properties: list[Property]


class Column(NamedTuple):
    """The values of a property in all rows, with lists concatenated."""

    values: NDArray[Any]
    lengths: NDArray[Any]


Table = dict[str, Column]


def read_ply(data: bytes) -> GeometryData:
    """Read vertices with normals and colors, and faces."""
    tables, points = read_tables(data)
    vertices = tables["vertex"]
    colors = _vertex_colors(vertices)
    normals = next((found for names in _NORMALS if (found := stack(vertices, *names)) is not None), None)
    corners = face_corners(tables.get("face", {}), points)
    faces = None if corners is None else triangulate(*corners, points)
    strips = _strip_faces(tables.get("tristrips", {}), points)
    if strips is not None:
        faces = strips if faces is None else np.concatenate([faces, strips])
    return GeometryData(points, faces, normals, None if colors is None else normalize_colors(colors))


def _vertex_colors(vertices: Table) -> Floats | None:
    """Return the colors under one of their usual names."""
    for prefix in ("", "diffuse_"):
        colors = stack(vertices, f"{prefix}red", f"{prefix}green", f"{prefix}blue")
        if colors is not None:
            return colors
    return stack(vertices, "r", "g", "b")


def read_tables(data: bytes) -> tuple[dict[str, Table], Floats]:
    """Read all tables; return them with the vertex positions."""
    data = data.removeprefix(_BYTE_ORDER_MARK)
    order, elements, start = _parse_header(data)
    tables = _read_ascii(data, elements, start) if order == "=" else _read_binary(data, elements, start)
    tables.setdefault("vertex", tables.get("point", {}))  # as some scanners name it
    points = stack(tables["vertex"], "x", "y", "z")
    if points is None:
        raise FileFormatError(
            "the file has no vertices: the header declares no element 'vertex' with x, y and z"
        )
    return tables, narrow_dtype(points) if order == "=" else points


def stack(table: Table, *names: str) -> Floats | None:
    """Stack columns; return None if one is missing."""
    if not all(name in table for name in names):
        return None
    columns = np.stack([table[name].values for name in names], axis=1)
    return np.asarray(columns, columns.dtype.newbyteorder("="))


def face_corners(table: Table, points: Floats) -> tuple[Indices, Indices] | None:
    """Return the vertex indices of all polygons, and their number of corners."""
    name = next((name for name in _CORNERS if name in table), None)
    if name is None:
        return None
    corners, sizes = (array.astype(np.int64) for array in table[name])
    wrong = np.flatnonzero((corners < 0) | (corners >= len(points)))
    if len(wrong):
        face = int(np.searchsorted(np.cumsum(sizes), wrong[0], side="right")) + 1
        raise FileFormatError(
            f"face {face} references vertex {corners[wrong[0]]}, but the file has 0 to {len(points) - 1}"
        )
    return corners, sizes


def _strip_faces(table: Table, points: Floats) -> Indices | None:
    """Return the triangles of strips, whose orientation alternates; -1 ends a strip, repeated vertices join strips."""
    name = next((name for name in _CORNERS if name in table), None)
    if name is None:
        return None
    corners, sizes = (array.astype(np.int64) for array in table[name])
    if ((corners < -1) | (corners >= len(points))).any():
        wrong = corners[(corners < -1) | (corners >= len(points))][0]
        raise FileFormatError(
            f"a triangle strip references vertex {wrong}, but the file has 0 to {len(points) - 1}"
        )
    ends = np.zeros(len(corners) + 1, bool)
    ends[np.cumsum(sizes)] = ends[0] = True
    ends[:-1] |= corners == -1
    ends[1:] |= corners == -1
    first = np.flatnonzero(ends)
    position = np.arange(len(corners)) - first[np.searchsorted(first, np.arange(len(corners)), "right") - 1]
    windows = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1) if len(corners) > 2 else None
    if windows is None:
        return None
    inside = (position[2:] >= 2) & (windows >= 0).all(axis=1)
    odd = (position[2:] % 2 == 1)[:, None]
    windows = np.where(odd, windows[:, [1, 0, 2]], windows)
    a, b, c = windows.T
    faces: Indices = windows[inside & (a != b) & (b != c) & (a != c)]
    return faces if len(faces) else None


def _parse_header(data: bytes) -> tuple[ByteOrder, list[Element], int]:
    if data[:3] != b"ply":
        raise FileFormatError("Invalid file header: a PLY file should begin with 'ply'")
    end = re.search(rb"[\r\n][ \t]*end_header[ \t]*(\r\n|\n|\r|\Z)", data)
    if end is None:
        raise FileFormatError("truncated: the header has no end_header line")
    order: ByteOrder | None = None
    elements: list[Element] = []
    for number, line in enumerate(split_lines(data[: end.start()]), 1):
        words = line.split()
        try:
            match words:
                case ["format", kind, *_]:
                    order = _ORDERS[kind]
                case ["element", name, count] if count.isdecimal():
                    elements.append(Element(name, int(count), []))
                case ["property", *kinds, name]:
                    elements[-1].properties.append(_parse_property(name.lower(), kinds, order))
                case ["element", *_]:
                    raise LookupError
        except LookupError as error:
            raise FileFormatError(f"line {number}: invalid header line {' '.join(words)[:60]!r}") from error
    if order is None:
        raise FileFormatError("the header has no format line")
    return order, [element for element in elements if element.num_rows and element.properties], end.end()


def _parse_property(name: str, kinds: list[str], order: ByteOrder | None) -> Property:
    """Parse `float`, or `list uchar int`; raise a LookupError if invalid."""
    if order is None or len(kinds) not in (1, 3) or (len(kinds) == 3 and kinds[0] != "list"):
        raise LookupError
    types = [np.dtype(_TYPES[kind]).newbyteorder(order) for kind in kinds[-2:]]
    if len(types) == 2 and types[0].kind == "f":
        raise LookupError
    return Property(name, types[-1], types[0] if len(types) == 2 else None)


def _read_ascii(data: bytes, elements: list[Element], start: int) -> dict[str, Table]:
    first = len(split_lines(data[:start]))
    filled = ((i, line) for i, line in enumerate(split_lines(data[start:]), first) if line.strip())
    tables = {}
    for element in elements:
        rows = list(islice(filled, element.num_rows))
        if len(rows) < element.num_rows:
            raise _truncated(element, len(rows))
        table = _ascii_table(element, [i for i, _ in rows], [line for _, line in rows])
        tables[element.name] = {p.name: _typed(table[p.name], p) for p in element.properties}
    return tables


def _ascii_table(element: Element, numbers: list[int], lines: list[str]) -> Table:
    """Convert text to doubles, and read these like a binary file."""
    if all(p.length_dtype is None for p in element.properties):
        flat = parse_rows(lines, numbers)
        widths = np.full(len(lines), flat.shape[1])
    else:
        flat, widths = parse_ragged(lines, numbers)
    double = np.dtype(np.float64)
    properties = [Property(p.name, double, p.length_dtype and double) for p in element.properties]
    try:
        table, _ = _read_rows(flat.tobytes(), element._replace(properties=properties), 0)
    except FileFormatError as error:
        raise _line_error(element, numbers, lines) or error from None
    used = np.sum([table[p.name].lengths for p in properties], axis=0) + len(_lists(element))
    if (used != widths).any():
        raise _line_error(element, numbers, lines) or FileFormatError(
            f"the rows of {element.name!r} do not match the header"
        )
    return table


def _line_error(element: Element, numbers: list[int], lines: list[str]) -> FileFormatError | None:
    """Find the first row whose number of columns does not match the header and the row's list lengths."""
    for number, line in zip(numbers, lines, strict=True):
        words, expected = line.split(), 0
        for p in element.properties:
            is_list = p.length_dtype is not None
            expected += 1 + (int(float(words[expected])) if expected < len(words) else 0) if is_list else 1
        if expected != len(words):
            return FileFormatError(
                f"line {number}: expected {expected} numbers by the header, got {len(words)}"
            )
    return None


def _typed(column: Column, p: Property) -> Column:
    """Convert integer properties to integers, which distinguishes colors in 0..255 from 0..1; keep doubles else.

    Values that do not fit the declared type become int64.
    """
    if p.dtype.kind not in "iu":
        return column
    values, declared = column.values.astype(np.int64), column.values.astype(p.dtype)
    return column._replace(values=declared if (declared == values).all() else values)


def _read_binary(data: bytes, elements: list[Element], offset: int) -> dict[str, Table]:
    tables = {}
    for element in elements:
        tables[element.name], offset = _read_rows(data, element, offset)
    return tables


def _read_rows(data: bytes, element: Element, offset: int) -> tuple[Table, int]:
    """Read all rows with the layout of the first, which fits most files; else row by row, by their list lengths."""
    min_size = sum((p.length_dtype or p.dtype).itemsize for p in element.properties)
    if element.num_rows * min_size > len(data) - offset:
        raise _truncated(element, (len(data) - offset) // min_size)
    layout = _layout_of_first(data, element, offset)
    if element.num_rows * layout.itemsize <= len(data) - offset:
        rows = np.frombuffer(data, layout, element.num_rows, offset)
        if all((rows[f"length of {p.name}"] == layout[p.name].shape).all() for p in _lists(element)):
            return _columns(rows, element), offset + rows.nbytes
    return _read_ragged_rows(data, element, offset)


def _lists(element: Element) -> list[Property]:
    return [p for p in element.properties if p.length_dtype is not None]


def _layout_of_first(data: bytes, element: Element, offset: int) -> np.dtype[Any]:
    fields: list[tuple[str, Any, tuple[int, ...]]] = []
    for p in element.properties:
        length = 1
        if p.length_dtype is not None:
            length = _list_length(data, 0, element, p, offset)
            fields.append((f"length of {p.name}", p.length_dtype, ()))
            offset += p.length_dtype.itemsize
        fields.append((p.name, p.dtype, (length,)))
        offset += p.dtype.itemsize * length
    return np.dtype(fields)


def _columns(rows: NDArray[Any], element: Element) -> Table:
    return {
        p.name: Column(rows[p.name].reshape(-1), np.full(len(rows), rows.dtype[p.name].shape[0]))
        for p in element.properties
    }


def _read_ragged_rows(data: bytes, element: Element, offset: int) -> tuple[Table, int]:
    starts: dict[str, list[int]] = {p.name: [] for p in element.properties}
    lengths: dict[str, list[int]] = {p.name: [] for p in element.properties}
    for row in range(element.num_rows):
        for p in element.properties:
            length = 1
            if p.length_dtype is not None:
                length = _list_length(data, row, element, p, offset)
                offset += p.length_dtype.itemsize
            starts[p.name].append(offset)
            lengths[p.name].append(length)
            offset += p.dtype.itemsize * length
    if offset > len(data):
        raise _truncated(element, element.num_rows - 1)
    return {
        p.name: _gather(data, p.dtype, starts[p.name], lengths[p.name]) for p in element.properties
    }, offset


def _gather(data: bytes, dtype: np.dtype[Any], starts: list[int], lengths: list[int]) -> Column:
    sizes = np.array(lengths) * dtype.itemsize
    byte = np.arange(sizes.sum()) + np.repeat(np.array(starts) - (np.cumsum(sizes) - sizes), sizes)
    return Column(np.frombuffer(data, np.uint8)[byte].view(dtype), np.array(lengths))


def _list_length(data: bytes, row: int, element: Element, p: Property, offset: int) -> int:
    assert p.length_dtype is not None
    end = offset + p.length_dtype.itemsize
    length = float(np.frombuffer(data[offset:end], p.length_dtype)[0]) if end <= len(data) else -1.0
    if not 0 <= length * p.dtype.itemsize <= len(data) - end or length % 1:
        raise FileFormatError(f"{element.name} {row + 1}: list {p.name!r} extends beyond the end of the file")
    return int(length)


def _truncated(element: Element, num_rows: int) -> FileFormatError:
    return FileFormatError(
        f"truncated or damaged: the header declares {element.num_rows} rows of {element.name!r}, but the file has "
        f"{num_rows}"
    )


def write_ply(
    file: BinaryIO, geometry: GeometryData, *, uvs: Floats | None = None, texture_file: str = ""
) -> None:
    """Write binary little-endian: positions in their own precision, colors as bytes, UV coordinates as `s` and `t`."""
    kind = "double" if geometry.points.dtype == np.float64 else "float"
    columns: list[tuple[str, str, NDArray[Any]]] = []
    columns += [(name, kind, geometry.points[:, i]) for i, name in enumerate("xyz")]
    if geometry.normals is not None:
        columns += [(name, "float", geometry.normals[:, i]) for i, name in enumerate(("nx", "ny", "nz"))]
    if geometry.colors is not None:
        rgb = np.rint(geometry.colors * 255).astype(np.uint8)
        columns += [(name, "uchar", rgb[:, i]) for i, name in enumerate(("red", "green", "blue"))]
    for name, values in geometry.vertex_values.items():
        columns.append((name, "uchar" if values.dtype == np.bool_ else "float", values))
    if uvs is not None:
        columns += [(name, "float", uvs[:, i]) for i, name in enumerate("st")]
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"comment TextureFile {texture_file}"] if texture_file else []
    header += [f"element vertex {len(geometry.points)}"]
    header += [f"property {kind} {name}" for name, kind, _ in columns]
    vertices = np.empty(len(geometry.points), [(name, f"<{_TYPES[kind]}") for name, kind, _ in columns])
    for name, _, values in columns:
        vertices[name] = values
    faces = np.empty(
        0 if geometry.faces is None else len(geometry.faces), [("size", "u1"), ("corners", "<i4", 3)]
    )
    if geometry.faces is not None:
        header += [f"element face {len(geometry.faces)}", "property list uchar int vertex_indices"]
        faces["size"], faces["corners"] = 3, geometry.faces
    file.write("\n".join([*header, "end_header", ""]).encode())
    file.write(vertices.tobytes() + faces.tobytes())
