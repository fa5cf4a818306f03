"""Writing of GLB files: one mesh with a PBR material."""

import json
import struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from unrender.io.geometry_data import Floats, GeometryData, Indices
from unrender.io.srgb import linear_from_srgb

ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
UNSIGNED_INT, FLOAT = 5125, 5126
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP_TO_EDGE = 9729, 9987, 33071
ALIGNMENT = 4


class EncodedImage(NamedTuple):
    """The content of an image file."""

    data: bytes
    mime_type: str


def write_glb(
    file: BinaryIO,
    geometry: GeometryData,
    *,
    uvs: Floats | None = None,
    image: EncodedImage | None = None,
    has_material: bool = False,
    double_sided: bool = False,
) -> None:
    """Write one mesh with normals, colors and texture as far as it has them; the material is rough and non-metallic.

    As positions are float32 in this format, those in float64 are centered and moved by a node. `uvs` are one per point,
    with v upwards.
    """
    buffer = _Buffer()
    node: dict[str, Any] = {"mesh": 0, "name": "mesh"}
    points = geometry.points
    if points.dtype == np.float64:
        center = np.rint(points.mean(axis=0))
        points = points - center
        node["translation"] = center.tolist()
    primitive = _add_primitive(buffer, geometry._replace(points=points), uvs)
    header: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "unrender"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [node],
        "meshes": [{"name": "mesh", "primitives": [primitive]}],
    }
    if has_material or image is not None:
        primitive["material"] = 0
        header |= _add_material(buffer, image, double_sided)
    header |= {"accessors": buffer.accessors, "bufferViews": buffer.views}
    header["buffers"] = [{"byteLength": len(buffer.body)}]
    _write_chunks(file, json.dumps(header).encode(), bytes(buffer.body))


def _add_primitive(buffer: "_Buffer", geometry: GeometryData, uvs: Floats | None) -> dict[str, Any]:
    attributes = {"POSITION": buffer.add_floats(geometry.points, bounds=True)}
    if geometry.normals is not None:
        attributes["NORMAL"] = buffer.add_floats(geometry.normals)
    if uvs is not None:
        attributes["TEXCOORD_0"] = buffer.add_floats(uvs * (1, -1) + (0, 1))
    if geometry.colors is not None:
        # floats: 8 bits are too coarse for dark colors on a linear scale, and trimesh misreads 16
        attributes["COLOR_0"] = buffer.add_floats(linear_from_srgb(geometry.colors))
    assert geometry.faces is not None
    return {"attributes": attributes, "indices": buffer.add_indices(geometry.faces)}


def _add_material(buffer: "_Buffer", image: EncodedImage | None, double_sided: bool) -> dict[str, Any]:
    """Return the parts of the header that describe the material and its texture."""
    base: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    material = {"name": "material", "pbrMetallicRoughness": base, "doubleSided": double_sided}
    if image is None:
        return {"materials": [material]}
    base["baseColorTexture"] = {"index": 0}
    wrap = {"wrapS": CLAMP_TO_EDGE, "wrapT": CLAMP_TO_EDGE}
    return {
        "materials": [material],
        "samplers": [{"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP_LINEAR, **wrap}],
        "images": [{"mimeType": image.mime_type, "bufferView": buffer.add(image.data)}],
        "textures": [{"sampler": 0, "source": 0}],
    }


class _Buffer:
    """The binary chunk, with the views and accessors into it."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, data: bytes, target: int | None = None) -> int:
        """Append bytes; return the number of their view."""
        view = {"buffer": 0, "byteOffset": len(self.body), "byteLength": len(data)}
        self.views.append(view if target is None else {**view, "target": target})
        self.body += data + bytes(-len(data) % ALIGNMENT)
        return len(self.views) - 1

    def add_floats(self, rows: Floats, *, bounds: bool = False) -> int:
        """Append vectors in single precision; return the number of their accessor."""
        values = np.ascontiguousarray(rows, "<f4")
        limits = {"min": values.min(0).tolist(), "max": values.max(0).tolist()} if bounds else {}
        kind = {"componentType": FLOAT, "type": f"VEC{values.shape[1]}", **limits}
        return self._add_accessor(self.add(values.tobytes(), ARRAY_BUFFER), len(values), kind)

    def add_indices(self, faces: Indices) -> int:
        """Append the corners of triangles."""
        corners = np.ascontiguousarray(faces, "<u4").reshape(-1)
        view = self.add(corners.tobytes(), ELEMENT_ARRAY_BUFFER)
        return self._add_accessor(view, len(corners), {"componentType": UNSIGNED_INT, "type": "SCALAR"})

    def _add_accessor(self, view: int, count: int, kind: dict[str, Any]) -> int:
        self.accessors.append({"bufferView": view, "count": count, **kind})
        return len(self.accessors) - 1


def _write_chunks(file: BinaryIO, header: bytes, body: bytes) -> None:
    header += b" " * (-len(header) % ALIGNMENT)
    file.write(struct.pack("<4sII", b"glTF", 2, 28 + len(header) + len(body)))
    file.write(struct.pack("<I4s", len(header), b"JSON") + header)
    file.write(struct.pack("<I4s", len(body), b"BIN\0") + body)
