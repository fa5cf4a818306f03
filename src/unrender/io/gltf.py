"""GLB, the binary form of glTF 2.0: the primitives of its scene, and their arrays.

Not read with trimesh, which does not check sizes against the file, fills unsupported arrays with zeros, and drops
texture coordinates of other sets than the first.
"""

import base64
import json
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unrender.errors import FileFormatError
from unrender.io.geometry_data import Floats, Indices

COMPONENT_TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
NUM_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
COMPRESSION = {
    "EXT_meshopt_compression": ", or pack the original with gltfpack without -c, -cc and -cz",
    "KHR_meshopt_compression": ", or pack the original with gltfpack without -c, -cc and -cz",
    "KHR_draco_mesh_compression": " (in Blender: export without Compression)",
}
"""Extensions that compress geometry, and how their files are written without."""
POINTS, TRIANGLES, TRIANGLE_STRIP, TRIANGLE_FAN = 0, 4, 5, 6
MAX_VERTICES = 2**27
"""134 million: nodes may repeat a mesh any number of times."""


class Glb(NamedTuple):
    """A GLB file."""

    header: dict[str, Any]
    body: bytes
    """The binary chunk."""


class Primitive(NamedTuple):
    """A primitive of a mesh, placed in the world by a node of the scene."""

    points: Floats
    faces: Indices
    attributes: dict[str, int]
    """Accessor of each vertex attribute."""
    material: int | None


def parse_glb(data: bytes) -> Glb:
    """Split a GLB file into its JSON header and its binary chunk."""
    if data[:4] != b"glTF":
        raise FileFormatError("not a GLB file: it should begin with 'glTF'")
    end = 20 + int.from_bytes(data[12:16], "little")
    size = int.from_bytes(data[end : end + 4], "little")
    header = json.loads(data[20:end])
    _check_extensions(header)
    return Glb(header, data[end + 8 : end + 8 + size])


def _check_extensions(header: dict[str, Any]) -> None:
    """Raise FileFormatError for compression that is not supported."""
    required = header.get("extensionsRequired", [])
    found = next((name for name in COMPRESSION if name in required), None)
    if found is not None:
        raise FileFormatError(
            f"compressed with {found}, which is not supported; export it without compression{COMPRESSION[found]}"
        )


def primitives(glb: Glb) -> list[Primitive]:
    """List the points and triangles of the scene in world coordinates; lines are skipped."""
    placed = [
        (primitive, matrix)
        for mesh, matrix in _placed_meshes(glb.header)
        for primitive in glb.header["meshes"][mesh]["primitives"]
        if primitive.get("mode", TRIANGLES) in (POINTS, TRIANGLES, TRIANGLE_STRIP, TRIANGLE_FAN)
    ]
    counts = [int(glb.header["accessors"][p["attributes"]["POSITION"]]["count"]) for p, _ in placed]
    if max(counts, default=0) > len(glb.body):
        raise FileFormatError(f"damaged: an array of {max(counts)} items exceeds its buffer")
    if sum(counts) > MAX_VERTICES:
        raise FileFormatError(
            f"the scene has {sum(counts)} vertices, more than {MAX_VERTICES // 10**6} million"
        )
    return [_place(glb, primitive, matrix) for primitive, matrix in placed]


def read_accessor(glb: Glb, index: int) -> NDArray[Any]:
    """Read an array [count, components] as a view of the file."""
    accessor = glb.header["accessors"][index]
    view = None if "sparse" in accessor else accessor.get("bufferView")
    if view is None or "EXT_meshopt_compression" in glb.header["bufferViews"][view].get("extensions", {}):
        raise FileFormatError("compressed or sparse arrays are not supported; export without compression")
    dtype, columns = np.dtype(COMPONENT_TYPES[accessor["componentType"]]), NUM_COMPONENTS[accessor["type"]]
    count, start = int(accessor["count"]), int(accessor.get("byteOffset", 0))
    stride = int(glb.header["bufferViews"][view].get("byteStride", dtype.itemsize * columns))
    content = read_buffer_view(glb, view)
    end = start + (count - 1) * stride + dtype.itemsize * columns
    if count < 0 or start < 0 or stride < dtype.itemsize * columns or (count and end > len(content)):
        raise FileFormatError(f"damaged: an array of {count} items exceeds its buffer")
    return np.ndarray((count, columns), dtype, content, start if count else 0, (stride, dtype.itemsize))


def read_normalized(glb: Glb, index: int) -> Floats:
    """Read an array of floats, or of integers that stand for fractions of their maximum."""
    values = read_accessor(glb, index)
    scale = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1.0
    normalized: Floats = np.maximum(
        values.astype(np.float64) / scale, -1.0 if values.dtype.kind in "iu" else -np.inf
    )
    return normalized


def read_buffer_view(glb: Glb, index: int) -> bytes:
    """Read a part of a buffer."""
    view = glb.header["bufferViews"][index]
    uri = glb.header["buffers"][view.get("buffer", 0)].get("uri")
    if uri is not None and not uri.startswith("data:"):
        raise FileFormatError("buffers in other files are not supported; export everything into the GLB file")
    buffer = glb.body if uri is None else base64.b64decode(uri.partition(",")[2])
    start, size = int(view.get("byteOffset", 0)), int(view["byteLength"])
    if start < 0 or size < 1 or start + size > len(buffer):
        raise FileFormatError(f"damaged or truncated: buffer view {index} exceeds its buffer")
    return buffer[start : start + size]


def _placed_meshes(header: dict[str, Any]) -> list[tuple[int, Floats]]:
    """List the mesh and the world transform of each node of the scene."""
    nodes = header.get("nodes", [])
    children = {child for node in nodes for child in node.get("children", [])}
    roots = [i for i in range(len(nodes)) if i not in children]
    if header.get("scenes"):
        roots = header["scenes"][header.get("scene", 0)].get("nodes", [])
    stack, visited = [(root, np.eye(4)) for root in reversed(roots)], set()
    placed = []
    while stack:
        index, world_from_parent = stack.pop()
        if index in visited:
            raise FileFormatError(f"damaged: node {index} has several parents")
        visited.add(index)
        world_from_node = world_from_parent @ _parent_from_node(nodes[index])
        if "mesh" in nodes[index]:
            placed.append((nodes[index]["mesh"], world_from_node))
        stack += [(child, world_from_node) for child in reversed(nodes[index].get("children", []))]
    return placed


def _parent_from_node(node: dict[str, Any]) -> Floats:
    matrix = np.eye(4)
    if "matrix" in node:
        matrix = np.array(node["matrix"], np.float64).reshape(4, 4).T
    elif node.keys() & {"translation", "rotation", "scale"}:
        x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), np.float64)
        x, y, z, w = np.array((x, y, z, w)) / (x * x + y * y + z * z + w * w) ** 0.5
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        matrix[:3, :3] = rotation * np.array(node.get("scale", (1, 1, 1)), np.float64)
        matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _place(glb: Glb, primitive: dict[str, Any], world_from_mesh: Floats) -> Primitive:
    """Read a primitive, and transform it to the world; a reflection keeps its normals outward."""
    position = primitive["attributes"]["POSITION"]
    is_normalized = glb.header["accessors"][position].get("normalized")
    points = (
        read_normalized(glb, position) if is_normalized else read_accessor(glb, position).astype(np.float64)
    )
    if not np.array_equal(world_from_mesh, np.eye(4)):
        points = points @ world_from_mesh[:3, :3].T + world_from_mesh[:3, 3]
    faces = _faces(glb, primitive, len(points))
    if len(faces) and faces.max() >= len(points):
        raise FileFormatError(
            f"a face references vertex {faces.max()}, but its mesh has 0 to {len(points) - 1}"
        )
    if np.linalg.det(world_from_mesh[:3, :3]) < 0:
        faces = faces[:, ::-1]
    return Primitive(points, faces, primitive["attributes"], primitive.get("material"))


def _faces(glb: Glb, primitive: dict[str, Any], num_points: int) -> Indices:
    mode = primitive.get("mode", TRIANGLES)
    if mode == TRIANGLE_FAN:
        raise FileFormatError("triangle fans are not supported; export as triangles")
    if mode == POINTS:
        return np.empty((0, 3), np.int64)
    indices = np.arange(num_points)
    if "indices" in primitive:
        indices = read_accessor(glb, primitive["indices"]).astype(np.int64)[:, 0]
    if mode == TRIANGLES:
        return indices.reshape(-1, 3)
    strip = np.stack([indices[:-2], indices[1:-1], indices[2:]], axis=1)
    strip[1::2] = strip[1::2, [1, 0, 2]]
    return strip
