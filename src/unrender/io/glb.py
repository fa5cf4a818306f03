"""Meshes and points of GLB files."""

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.geometry_data import Floats, GeometryData, narrow_dtype
from unrender.io.gltf import Glb, Primitive, parse_glb, primitives, read_normalized
from unrender.io.srgb import srgb_from_linear
from unrender.io.weld import weld

SRGB_GENERATORS = ("https://github.com/mikedh/trimesh",)
"""Programs that write sRGB where glTF has linear colors."""


def read_glb(data: bytes) -> GeometryData:
    """Read all meshes of the scene in world coordinates; vertices split along texture seams are merged."""
    glb = parse_glb(data)
    parts = [
        GeometryData(primitive.points, primitive.faces, None, _colors(glb, primitive))
        for primitive in primitives(glb)
        if len(primitive.points)
    ]
    if not parts:
        raise FileFormatError("the scene has neither triangles nor points")
    return weld(_join(parts))


def _colors(glb: Glb, primitive: Primitive) -> Floats | None:
    accessor = primitive.attributes.get("COLOR_0")
    if accessor is None:
        return None
    colors = read_normalized(glb, accessor)[:, :3].clip(0, 1)
    is_srgb = glb.header.get("asset", {}).get("generator") in SRGB_GENERATORS
    return (colors if is_srgb else srgb_from_linear(colors)).astype(np.float32)


def _join(parts: list[GeometryData]) -> GeometryData:
    """Concatenate meshes; colors are kept if all of them have some."""
    starts = np.cumsum([0, *(len(part.points) for part in parts)])
    faces = np.concatenate(
        [part.faces + start for part, start in zip(parts, starts, strict=False) if part.faces is not None]
    )
    colors = [part.colors for part in parts if part.colors is not None]
    return GeometryData(
        narrow_dtype(np.concatenate([part.points for part in parts])),
        faces if len(faces) else None,
        None,
        np.concatenate(colors) if len(colors) == len(parts) else None,
    )
