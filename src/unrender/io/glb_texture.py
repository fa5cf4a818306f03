"""Base colors and texture coordinates of GLB files."""

import base64
import math
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.face_materials import BaseColor, FaceMaterials, WrapMode
from unrender.io.files import reading
from unrender.io.geometry_data import Floats
from unrender.io.gltf import Glb, Primitive, parse_glb, primitives, read_buffer_view, read_normalized
from unrender.io.gltf_files import glb_bytes

_WRAP_MODES: dict[int, WrapMode] = {10497: "repeat", 33648: "mirror", 33071: "clamp"}


class TexturedPrimitive(NamedTuple):
    """The UV coordinates of a primitive's vertices, and its material."""

    uvs: Floats
    material: int
    """−1 for none."""
    has_uvs: bool


def read_glb_materials(path: Path) -> FaceMaterials | None:
    """Read base color textures and factors, and the texture coordinates of the faces; None without images."""
    data = glb_bytes(path)
    with reading(path):
        glb = parse_glb(data)
        if not glb.header.get("images"):
            return None
        materials = glb.header.get("materials", [])
        base_colors = [BaseColor(), *(_base_color(material, glb, path) for material in materials)]
        placed = [primitive for primitive in primitives(glb) if len(primitive.points)]
        textured = [_textured(glb, primitive) for primitive in placed]
    starts = np.cumsum([0, *(len(primitive.uvs) for primitive in textured)])
    kinds = [part.material + 1 + (0 if part.has_uvs else len(base_colors)) for part in textured]
    return FaceMaterials(
        np.concatenate([part.uvs for part in textured]),
        np.concatenate([part.faces + start for part, start in zip(placed, starts, strict=False)]),
        np.repeat(kinds, [len(part.faces) for part in placed]),
        [*base_colors, *(base_color._replace(image=None) for base_color in base_colors)],
    )


def _texture_info(material: dict[str, Any]) -> dict[str, Any]:
    info: dict[str, Any] = material.get("pbrMetallicRoughness", {}).get("baseColorTexture", {})
    return info


def _uv_transform(info: dict[str, Any]) -> dict[str, Any]:
    transform: dict[str, Any] = info.get("extensions", {}).get("KHR_texture_transform", {})
    return transform


def _textured(glb: Glb, primitive: Primitive) -> TexturedPrimitive:
    material = -1 if primitive.material is None else primitive.material
    info = _texture_info(glb.header["materials"][material]) if material >= 0 else {}
    uv_set = _uv_transform(info).get("texCoord", info.get("texCoord", 0))
    accessor = primitive.attributes.get(f"TEXCOORD_{uv_set}")
    uvs = None if accessor is None else read_normalized(glb, accessor)[:, :2]
    if uvs is None or len(uvs) != len(primitive.points):
        return TexturedPrimitive(np.zeros((len(primitive.points), 2)), material, has_uvs=False)
    return TexturedPrimitive(_transform(uvs, _uv_transform(info)) * (1, -1) + (0, 1), material, has_uvs=True)


def _transform(uvs: Floats, transform: dict[str, Any]) -> Floats:
    """Apply KHR_texture_transform: scale, rotate, translate."""
    angle = float(transform.get("rotation", 0.0))
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    transformed: Floats = uvs * transform.get("scale", (1, 1)) @ rotation.T + transform.get("offset", (0, 0))
    return transformed


def _base_color(material: dict[str, Any], glb: Glb, path: Path) -> BaseColor:
    factor = material.get("pbrMetallicRoughness", {}).get("baseColorFactor", (1.0, 1.0, 1.0))
    if not np.isfinite(np.array(factor, np.float64)).all():
        raise FileFormatError(f"a material has the base color {factor}")
    red, green, blue = (min(max(float(value), 0.0), 1.0) for value in factor[:3])
    info = _texture_info(material)
    if not info:
        return BaseColor((red, green, blue))
    texture = glb.header["textures"][info["index"]]
    source = texture.get("source", texture.get("extensions", {}).get("EXT_texture_webp", {}).get("source"))
    if source is None:
        raise FileFormatError("textures should be png, jpeg or webp images; export with those")
    sampler = glb.header["samplers"][texture["sampler"]] if "sampler" in texture else {}
    wrap = (_WRAP_MODES[sampler.get("wrapS", 10497)], _WRAP_MODES[sampler.get("wrapT", 10497)])
    image = _image(glb, glb.header["images"][source], path)
    return BaseColor((red, green, blue), image, f"{path}, image {source}", wrap)


def _image(glb: Glb, image: dict[str, Any], path: Path) -> Path | bytes:
    """Return the content of an embedded image, or the path of an external one."""
    uri = image.get("uri")
    if uri is None:
        return read_buffer_view(glb, image["bufferView"])
    embedded = uri.startswith("data:")
    return base64.b64decode(uri.partition(",")[2]) if embedded else path.parent / unquote(uri)
