"""The pictures on the faces of a GLB file; trimesh reads the arrays, as it does for the shape."""

import base64
import json
import math
import struct
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.contents import Floats, Indices
from unrender.io.face_textures import Outside, Paint, Painting
from unrender.io.files import read_bytes, reading
from unrender.io.glb import geometries, place, read_header

_OUTSIDE: dict[int, Outside] = {10497: "repeat", 33648: "mirror", 33071: "clamp"}
_UV = "_UV"
"""An attribute that trimesh hands on as it stands."""


class Part(NamedTuple):
    """What lies on the faces of one primitive, at one place of the scene."""

    uvs: Floats
    corners: Indices
    material: int
    """−1 for none."""
    has_uvs: bool


def read_glb_painting(path: Path) -> Painting | None:
    """Read base colors: pictures times factors, and where the corners of the faces lie on them."""
    data = read_bytes(path)
    with reading(path):
        header = read_header(data)
        if not header.get("images"):
            return None
        materials = header.get("materials", [])
        paints = [Paint(), *(_paint(material, header, data, path) for material in materials)]
        placed = geometries(_prepared(header, data), materials=True)
        parts = [_part(geometry, world_from_geometry, materials) for geometry, world_from_geometry in placed]
    starts = np.cumsum([0, *(len(part.uvs) for part in parts)])
    kinds = [part.material + 1 + (0 if part.has_uvs else len(paints)) for part in parts]
    return Painting(
        np.concatenate([part.uvs for part in parts]),
        np.concatenate([part.corners + start for part, start in zip(parts, starts, strict=False)]),
        np.repeat(kinds, [len(part.corners) for part in parts]),
        [*paints, *(paint._replace(picture=None) for paint in paints)],
    )


def _picture_info(material: dict[str, Any]) -> dict[str, Any]:
    info: dict[str, Any] = material.get("pbrMetallicRoughness", {}).get("baseColorTexture", {})
    return info


def _transform(info: dict[str, Any]) -> dict[str, Any]:
    transform: dict[str, Any] = info.get("extensions", {}).get("KHR_texture_transform", {})
    return transform


def _prepared(header: dict[str, Any], data: bytes) -> bytes:
    """Call materials by their numbers, leave pictures out, and give the coordinates of the base color a name."""
    materials = header.get("materials", [])
    meshes = json.loads(json.dumps(header.get("meshes", [])))
    for primitive in (primitive for mesh in meshes for primitive in mesh["primitives"]):
        info = _picture_info(materials[primitive["material"]]) if "material" in primitive else {}
        chosen = f"TEXCOORD_{_transform(info).get('texCoord', info.get('texCoord', 0))}"
        found = primitive["attributes"].get(chosen)
        primitive["attributes"] = {"POSITION": primitive["attributes"]["POSITION"]}
        if found is not None:
            primitive["attributes"][_UV] = found
    numbered = [{"name": str(i)} for i in range(len(materials))]
    changed = header | {"meshes": meshes, "materials": numbered, "images": [], "textures": []}
    text = json.dumps(changed).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + int.from_bytes(data[12:16], "little") :]
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON") + text + rest


def _part(geometry: Any, world_from_geometry: Floats, materials: list[dict[str, Any]]) -> Part:
    faces = place(geometry, world_from_geometry).faces
    assert faces is not None
    name = getattr(getattr(geometry.visual, "material", None), "name", None) if len(faces) else None
    material = -1 if name is None else int(name)
    found = getattr(geometry, "vertex_attributes", {}).get(_UV)
    if found is None or len(found) != len(geometry.vertices):
        return Part(np.zeros((len(geometry.vertices), 2)), faces, material, has_uvs=False)
    whole = np.iinfo(found.dtype).max if found.dtype.kind in "iu" else 1.0
    transform = _transform(_picture_info(materials[material])) if material >= 0 else {}
    uvs = _transformed(np.asarray(found, dtype=np.float64)[:, :2] / whole, transform)
    return Part(uvs * (1, -1) + (0, 1), faces, material, has_uvs=True)


def _transformed(uvs: Floats, transform: dict[str, Any]) -> Floats:
    """Scale, turn and move, as KHR_texture_transform says."""
    angle = float(transform.get("rotation", 0.0))
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    moved: Floats = uvs * transform.get("scale", (1, 1)) @ rotation.T + transform.get("offset", (0, 0))
    return moved


def _paint(material: dict[str, Any], header: dict[str, Any], data: bytes, path: Path) -> Paint:
    factor = material.get("pbrMetallicRoughness", {}).get("baseColorFactor", (1.0, 1.0, 1.0))
    red, green, blue = (min(max(float(value), 0.0), 1.0) for value in factor[:3])
    info = _picture_info(material)
    if not info:
        return Paint((red, green, blue))
    texture = header["textures"][info["index"]]
    source = texture.get("source", texture.get("extensions", {}).get("EXT_texture_webp", {}).get("source"))
    if source is None:
        raise FileFormatError("its pictures are neither png, jpeg nor webp: export it with those")
    sampler = header["samplers"][texture["sampler"]] if "sampler" in texture else {}
    outside = (_OUTSIDE[sampler.get("wrapS", 10497)], _OUTSIDE[sampler.get("wrapT", 10497)])
    picture = _image(header, header["images"][source], data, path)
    return Paint((red, green, blue), picture, f"{path}, image {source}", outside)


def _image(header: dict[str, Any], image: dict[str, Any], data: bytes, path: Path) -> Path | bytes:
    """Return a picture that stands in the file, or the file that it names."""
    uri = image.get("uri")
    if uri is not None:
        embedded = uri.startswith("data:")
        return base64.b64decode(uri.partition(",")[2]) if embedded else path.parent / unquote(uri)
    view = header["bufferViews"][image["bufferView"]]
    body = 28 + int.from_bytes(data[12:16], "little")
    first = body + int(view.get("byteOffset", 0))
    picture = data[first : first + int(view["byteLength"])] if first >= body else b""
    if len(picture) < int(view["byteLength"]) or not picture:
        raise FileFormatError("a picture in it is cut off")
    return picture
