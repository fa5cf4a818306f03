"""Meshes and points of GLB files; written with trimesh."""

from typing import Any, BinaryIO

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.geometry_data import Floats, GeometryData, narrow_dtype
from unrender.io.gltf import Glb, Primitive, parse_glb, primitives, read_normalized
from unrender.io.weld import weld


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
    colors: Floats = read_normalized(glb, accessor)[:, :3].astype(np.float32).clip(0, 1)
    return colors


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


def write_glb(file: BinaryIO, geometry: GeometryData) -> None:
    """Write one mesh; as positions are float32 in this format, those in float64 are centered and moved by a node."""
    import trimesh

    world_from_mesh = np.eye(4)
    if geometry.points.dtype == np.float64:
        world_from_mesh[:3, 3] = np.rint(geometry.points.mean(axis=0))
    mesh = trimesh.Trimesh(
        geometry.points - world_from_mesh[:3, 3],
        geometry.faces,
        vertex_colors=None if geometry.colors is None else np.rint(geometry.colors * 255).astype(np.uint8),
        process=False,
    )
    scene: Any = trimesh.Scene()
    scene.add_geometry(mesh, transform=world_from_mesh)
    file.write(scene.export(file_type="glb"))
