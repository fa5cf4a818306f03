"""GLB, the binary form of glTF 2.0, through trimesh."""

import io
import json
from typing import Any, BinaryIO

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.contents import Contents, Floats, narrowest, unit_colors
from unrender.io.weld import weld

_FAN = 6
_IDENTITY = np.eye(4)


def read_glb(data: bytes) -> Contents:
    """Read all meshes of the scene, each where its node puts it; vertices split along seams are joined."""
    check_header(read_header(data), len(data))
    parts = [place(geometry, world_from_geometry) for geometry, world_from_geometry in geometries(data)]
    parts = [part for part in parts if len(part.points)]
    if not parts:
        raise FileFormatError("neither triangles nor points in its scene")
    return weld(_join(parts))


def read_header(data: bytes) -> dict[str, Any]:
    """Return the JSON of a GLB file."""
    if data[:4] != b"glTF":
        raise FileFormatError("not a GLB file: it does not begin with 'glTF'")
    header: dict[str, Any] = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    return header


def check_header(header: dict[str, Any], size: int) -> None:
    """Refuse what trimesh would answer with zeros, or with an array of a size that only the header claims."""
    for accessor in header.get("accessors", []):
        if "bufferView" not in accessor or "sparse" in accessor:
            raise FileFormatError(
                "compressed or sparse arrays are not supported: export it without compression"
            )
        if not 0 <= int(accessor["count"]) <= size:
            raise FileFormatError(f"an array of {accessor['count']} items in a file of {size} bytes")
    for mesh in header.get("meshes", []):
        for primitive in mesh["primitives"]:
            if primitive.get("mode") == _FAN:
                raise FileFormatError("triangle fans are not supported: export it as triangles")
            if header["accessors"][primitive["attributes"]["POSITION"]].get("normalized"):
                raise FileFormatError(
                    "positions as fractions are not supported: export it with float positions"
                )


def geometries(data: bytes, *, materials: bool = False) -> list[tuple[Any, Floats]]:
    """List what the scene shows, and where."""
    import trimesh

    scene = trimesh.load_scene(io.BytesIO(data), file_type="glb", process=False, skip_materials=not materials)
    shown = [scene.graph[node] for node in scene.graph.nodes_geometry]
    return [(scene.geometry[name], world_from_geometry) for world_from_geometry, name in shown]


def place(geometry: Any, world_from_geometry: Floats) -> Contents:
    """Move a trimesh geometry into the world; a mirror image keeps its outside outside."""
    points = np.asarray(geometry.vertices, dtype=np.float64)
    if not np.array_equal(world_from_geometry, _IDENTITY):
        points = points @ world_from_geometry[:3, :3].T + world_from_geometry[:3, 3]
    faces = np.asarray(getattr(geometry, "faces", np.empty((0, 3))), dtype=np.int64)
    if len(faces) and (faces.min() < 0 or faces.max() >= len(points)):
        raise FileFormatError(f"a face names vertex {faces.max()}; its mesh has 0 to {len(points) - 1}")
    if np.linalg.det(world_from_geometry[:3, :3]) < 0:
        faces = faces[:, ::-1]
    return Contents(points, faces, None, _colors(geometry))


def _colors(geometry: Any) -> Floats | None:
    visual = getattr(geometry, "visual", None)
    colors = getattr(visual, "vertex_colors", None) if getattr(visual, "kind", None) == "vertex" else None
    return None if colors is None else unit_colors(np.asarray(colors)[:, :3])


def _join(parts: list[Contents]) -> Contents:
    """Put parts into one; colors stay where all of them have some."""
    starts = np.cumsum([0, *(len(part.points) for part in parts)])
    faces = np.concatenate(
        [part.faces + start for part, start in zip(parts, starts, strict=False) if part.faces is not None]
    )
    colors = [part.colors for part in parts if part.colors is not None]
    return Contents(
        narrowest(np.concatenate([part.points for part in parts])),
        faces if len(faces) else None,
        None,
        np.concatenate(colors) if len(colors) == len(parts) else None,
    )


def write_glb(file: BinaryIO, contents: Contents) -> None:
    """Write one mesh; positions are float32 in this format, so that those in float64 are moved by a node."""
    import trimesh

    world_from_mesh = np.eye(4)
    if contents.points.dtype == np.float64:
        world_from_mesh[:3, 3] = np.rint(contents.points.mean(axis=0))
    mesh = trimesh.Trimesh(
        contents.points - world_from_mesh[:3, 3],
        contents.faces,
        vertex_colors=None if contents.colors is None else np.rint(contents.colors * 255).astype(np.uint8),
        process=False,
    )
    scene: Any = trimesh.Scene()
    scene.add_geometry(mesh, transform=world_from_mesh)
    file.write(scene.export(file_type="glb"))
