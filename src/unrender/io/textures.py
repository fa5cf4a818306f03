"""Meshes with their pictures."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from unrender.geometry.mesh import Mesh
from unrender.io.contents import Floats
from unrender.io.face_textures import Paint, Painting
from unrender.io.files import FilePath, MissingFileError, read_bytes, reading
from unrender.io.glb_texture import read_glb_painting
from unrender.io.images import colors_from_picture, open_picture
from unrender.io.meshes import load_mesh
from unrender.io.obj_texture import read_obj_painting
from unrender.io.ply_texture import read_ply_painting
from unrender.io.texture_atlas import texture_from_painting
from unrender.render.texture import Texture

PAINTING_READERS: dict[str, Callable[[Path], Painting | None]] = {
    ".obj": read_obj_painting,
    ".ply": read_ply_painting,
    ".glb": read_glb_painting,
}


def load_textured_mesh(path: FilePath) -> tuple[Mesh, Texture | None]:
    """Load a mesh as `load_mesh` does, and the picture on it, from obj with mtl, ply or glb.

    The texture is None where no face lies on a picture. One picture stays as it is, unless faces go beyond its
    border, where it repeats; of several, and of materials with a color only, the parts that faces lie on are put
    into one. Opacity is dropped.
    Raises `MissingFileError` where a material file or a picture is missing, `FileFormatError` where one is
    damaged or too large, and what `load_mesh` raises.
    """
    mesh = load_mesh(path)
    read_painting = PAINTING_READERS.get(Path(path).suffix.lower())
    painting = read_painting(Path(path)) if read_painting else None
    if painting is None or not painting.has_pictures():
        return mesh, None
    with reading(path):
        texture = texture_from_painting(painting, functools.cache(_read))
    return mesh, texture.to(mesh.vertices.dtype)


def _read(paint: Paint) -> Floats:
    """Read a paint's picture and color it."""
    data = paint.picture if isinstance(paint.picture, bytes) else _picture_bytes(paint)
    with reading(paint.named_in if isinstance(paint.picture, bytes) else str(paint.picture)):
        picture = colors_from_picture(open_picture(data))[..., :3]
    if paint.color != Paint().color:
        picture *= np.array(paint.color, np.float32)
    return picture


def _picture_bytes(paint: Paint) -> bytes:
    assert isinstance(paint.picture, Path)
    if not paint.picture.is_file():
        raise MissingFileError(
            f"{paint.named_in}: there is no picture {paint.picture}; load_mesh reads the shape alone"
        )
    return read_bytes(paint.picture)
