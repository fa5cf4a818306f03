"""Stanford PLY, ASCII and binary, with doubles and polygons of mixed sizes, which trimesh leaves out.

Every count of the header is held against the bytes that are there before anything is allocated.
"""

import re
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.contents import Contents, Floats, Indices, narrowest, unit_colors
from unrender.io.lines import parse_rows, split_lines
from unrender.io.polygons import triangulate

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "int64": "i8", "uint64": "u8",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS: dict[str, Literal["=", "<", ">"]] = {
    "ascii": "=",
    "binary_little_endian": "<",
    "binary_big_endian": ">",
}
_CORNER_LISTS = ("vertex_indices", "vertex_index")


class Property(NamedTuple):
    """One number of an element, or a list of them."""

    name: str
    dtype: np.dtype[np.generic]
    count_dtype: np.dtype[np.generic] | None = None


class Element(NamedTuple):
    """A table of the file: as many rows as the header promises."""

    name: str
    num_rows: int
    properties: list[Property]


def read_ply(data: bytes) -> Contents:
    """Read vertices with normals and colors, and faces."""
    order, elements, start = _parse_header(data)
    tables = _read_ascii(data, elements, start) if order == "=" else _read_binary(data, elements, start)
    vertices = tables.get("vertex", {})
    points = _columns(vertices, ("x", "y", "z"))
    if points is None or len(points) == 0:
        raise FileFormatError("no vertices: the header names no element 'vertex' with x, y, z")
    colors = _columns(vertices, ("red", "green", "blue"))
    return Contents(
        narrowest(points) if order == "=" else points,
        _faces(tables.get("face", {}), len(points)),
        _columns(vertices, ("nx", "ny", "nz")),
        None if colors is None else unit_colors(colors),
    )


def _columns(table: dict[str, np.ndarray], names: tuple[str, ...]) -> Floats | None:
    return np.stack([table[name] for name in names], axis=1) if all(name in table for name in names) else None


def _faces(table: dict[str, np.ndarray], num_vertices: int) -> Indices | None:
    name = next((name for name in _CORNER_LISTS if name in table), None)
    if name is None or len(table[f"{name} count"]) == 0:
        return None
    corners, sizes = table[name].astype(np.int64), table[f"{name} count"].astype(np.int64)
    wrong = (corners < 0) | (corners >= num_vertices)
    if wrong.any():
        at = int(wrong.argmax())
        face = int(np.searchsorted(np.cumsum(sizes), at, side="right"))
        raise FileFormatError(
            f"face {face + 1} names vertex {corners[at]}, where the file has 0 to {num_vertices - 1}"
        )
    return triangulate(corners, sizes)


def _parse_header(data: bytes) -> tuple[str, list[Element], int]:
    if data[:3] != b"ply":
        raise FileFormatError("not a PLY file: it does not begin with 'ply'")
    end = re.search(rb"^[ \t]*end_header[ \t]*(\r\n|\n|\r|\Z)", data, re.MULTILINE)
    if end is None:
        end = re.search(rb"\rend_header[ \t]*\r", data)
    if end is None:
        raise FileFormatError("the header has no end_header line; the file is truncated")
    order: Literal["=", "<", ">"] | None = None
    elements: list[Element] = []
    for number, line in enumerate(split_lines(data[: end.start()]), 1):
        words = line.split()
        try:
            match words:
                case ["format", kind, _]:
                    order = _ORDERS[kind]
                case ["element", name, count] if count.isdecimal():
                    elements.append(Element(name, int(count), []))
                case ["property", "list", count_type, item_type, name]:
                    elements[-1].properties.append(
                        Property(name, np.dtype(_TYPES[item_type]), np.dtype(_TYPES[count_type]))
                    )
                case ["property", kind, name]:
                    elements[-1].properties.append(Property(name, np.dtype(_TYPES[kind])))
                case [] | ["ply" | "comment" | "obj_info", *_]:
                    pass
                case _:
                    raise FileFormatError(f"line {number}: the header cannot say {line.strip()[:60]!r}")
        except LookupError as error:
            raise FileFormatError(f"line {number}: the header cannot say {line.strip()[:60]!r}") from error
    if order is None:
        raise FileFormatError("the header has no format line")
    return order, [_in_order(element, order) for element in elements], end.end()


def _in_order(element: Element, order: Literal["=", "<", ">"]) -> Element:
    properties = [
        Property(p.name, p.dtype.newbyteorder(order), p.count_dtype and p.count_dtype.newbyteorder(order))
        for p in element.properties
    ]
    return element._replace(properties=properties)


def _read_ascii(data: bytes, elements: list[Element], start: int) -> dict[str, dict[str, np.ndarray]]:
    first = data.count(b"\n", 0, start) + 1
    lines = [(number, line) for number, line in enumerate(split_lines(data[start:]), first) if line.strip()]
    tables = {}
    for element in elements:
        if element.num_rows > len(lines):
            raise FileFormatError(
                f"the header promises {element.num_rows} lines for element {element.name!r}, "
                f"{len(lines)} are there; the file is truncated"
            )
        rows, lines = lines[: element.num_rows], lines[element.num_rows :]
        tables[element.name] = _ascii_table(element, [row for _, row in rows], [number for number, _ in rows])
    return tables


def _ascii_table(element: Element, rows: list[str], numbers: list[int]) -> dict[str, np.ndarray]:
    if not any(p.count_dtype for p in element.properties):
        values = parse_rows(rows, numbers)
        if rows and values.shape[1] < len(element.properties):
            raise FileFormatError(
                f"line {numbers[0]}: {values.shape[1]} numbers; the header names {len(element.properties)}"
            )
        values = values.reshape(len(rows), -1)
        return {
            p.name: _typed(values[:, i : i + 1], p)[:, 0] for i, p in enumerate(element.properties) if rows
        }
    items: dict[str, list[str]] = {p.name: [] for p in element.properties}
    counts: dict[str, list[int]] = {p.name: [] for p in element.properties}
    for number, row in zip(numbers, rows, strict=True):
        words, at = row.split(), 0
        for p in element.properties:
            size = 1
            if p.count_dtype:
                size = int(words[at]) if at < len(words) and words[at].isdecimal() else -1
                at += 1
            if size < 0 or at + size > len(words):
                raise FileFormatError(
                    f"line {number}: its numbers do not fill the list {p.name!r} of {element.name!r}"
                )
            items[p.name] += words[at : at + size]
            counts[p.name].append(size)
            at += size
    table = {}
    for p in element.properties:
        table[p.name] = np.array(items[p.name], dtype=np.float64)
        table[f"{p.name} count"] = np.array(counts[p.name], dtype=np.int64)
    return table


def _typed(values: np.ndarray, p: Property) -> np.ndarray:
    """Give colors their type back, which tells 0..255 from 0..1; keep all digits of the rest."""
    return values.astype(p.dtype) if p.dtype.kind in "iu" else values


def _read_binary(data: bytes, elements: list[Element], offset: int) -> dict[str, dict[str, np.ndarray]]:
    tables = {}
    for element in elements:
        least = sum((p.count_dtype or p.dtype).itemsize for p in element.properties)
        if element.num_rows * least > len(data) - offset:
            raise FileFormatError(
                f"byte {offset}: the header promises {element.num_rows} of element {element.name!r}, "
                f"at least {least} bytes each, and {len(data) - offset} bytes are left; the file is truncated"
            )
        if least and element.num_rows:
            tables[element.name], offset = _binary_table(data, element, offset)
    return tables


def _binary_table(data: bytes, element: Element, offset: int) -> tuple[dict[str, np.ndarray], int]:
    """Read rows that all look like the first, which are most files; walk row by row where they do not."""
    fields: list[tuple[str, np.dtype[np.generic], tuple[int, ...]]] = []
    at = offset
    for p in element.properties:
        size = 1
        if p.count_dtype:
            fields.append((f"{p.name} count", p.count_dtype, ()))
            size = max(0, int(_number(data, at, p.count_dtype, element, 0)))
            at += p.count_dtype.itemsize
        if size * p.dtype.itemsize > len(data) - at:
            raise _truncated(at, element, 0)
        fields.append((p.name, p.dtype, (size,) if p.count_dtype else ()))
        at += size * p.dtype.itemsize
    dtype = np.dtype(fields)
    if element.num_rows * dtype.itemsize <= len(data) - offset:
        rows = np.frombuffer(data, dtype, element.num_rows, offset)
        lists = [p.name for p in element.properties if p.count_dtype]
        if all((rows[f"{name} count"] == dtype[name].shape[0]).all() for name in lists):
            table = {name: rows[name].reshape(-1) for name in dtype.names or ()}
            return table, offset + rows.nbytes
    return _walk(data, element, offset)


def _walk(data: bytes, element: Element, offset: int) -> tuple[dict[str, np.ndarray], int]:
    table: dict[str, list[np.ndarray]] = {p.name: [] for p in element.properties}
    counts: dict[str, list[int]] = {p.name: [] for p in element.properties}
    for row in range(element.num_rows):
        for p in element.properties:
            size = 1
            if p.count_dtype:
                size = int(_number(data, offset, p.count_dtype, element, row))
                offset += p.count_dtype.itemsize
            if size < 0 or size * p.dtype.itemsize > len(data) - offset:
                raise _truncated(offset, element, row)
            table[p.name].append(np.frombuffer(data, p.dtype, size, offset))
            counts[p.name].append(size)
            offset += size * p.dtype.itemsize
    joined = {name: np.concatenate(parts) for name, parts in table.items()}
    return joined | {f"{name} count": np.array(sizes) for name, sizes in counts.items()}, offset


def _number(data: bytes, at: int, dtype: np.dtype[np.generic], element: Element, row: int) -> np.generic:
    if at + dtype.itemsize > len(data):
        raise _truncated(at, element, row)
    number: np.generic = np.frombuffer(data, dtype, 1, at)[0]
    return number


def _truncated(at: int, element: Element, row: int) -> FileFormatError:
    return FileFormatError(f"byte {at}: row {row + 1} of element {element.name!r} does not fit into the file")


def write_ply(file: BinaryIO, contents: Contents) -> None:
    """Write little-endian binary: positions in their own precision, colors as bytes."""
    kind = "double" if contents.points.dtype == np.float64 else "float"
    columns: list[tuple[str, str, np.ndarray]] = [
        (name, kind, contents.points[:, i]) for i, name in enumerate("xyz")
    ]
    if contents.normals is not None:
        columns += [(name, "float", contents.normals[:, i]) for i, name in enumerate(("nx", "ny", "nz"))]
    if contents.colors is not None:
        rgb = np.rint(contents.colors * 255).astype(np.uint8)
        columns += [(name, "uchar", rgb[:, i]) for i, name in enumerate(("red", "green", "blue"))]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(contents.points)}"]
    header += [f"property {kind} {name}" for name, kind, _ in columns]
    vertices = np.empty(
        len(contents.points), np.dtype([(name, "<" + _TYPES[kind]) for name, kind, _ in columns])
    )
    for name, _, values in columns:
        vertices[name] = values
    if contents.faces is not None:
        header += [f"element face {len(contents.faces)}", "property list uchar int vertex_indices"]
    file.write("\n".join([*header, "end_header", ""]).encode())
    file.write(vertices.tobytes())
    if contents.faces is not None:
        faces = np.empty(len(contents.faces), np.dtype([("count", "u1"), ("corners", "<i4", (3,))]))
        faces["count"], faces["corners"] = 3, contents.faces
        file.write(faces.tobytes())
