"""Loading of textured meshes."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from unrender.geometry.mesh import Mesh
from unrender.io.face_materials import BaseColor, FaceMaterials
from unrender.io.files import FilePath, MissingFileError, is_file, read_bytes, reading
from unrender.io.geometry_data import Floats
from unrender.io.glb_texture import read_glb_materials
from unrender.io.images import colors_from_image, open_image
from unrender.io.meshes import load_mesh
from unrender.io.obj_texture import read_obj_materials
from unrender.io.ply_texture import read_ply_materials
from unrender.io.texture_atlas import texture_from_materials
from unrender.render.texture import Texture

MATERIAL_READERS: dict[str, Callable[[Path], FaceMaterials | None]] = {
    ".obj": read_obj_materials,
    ".ply": read_ply_materials,
    ".glb": read_glb_materials,
    ".gltf": read_glb_materials,
}


def load_textured_mesh(path: FilePath) -> tuple[Mesh, Texture | None]:
    """Load a mesh as `load_mesh` does, with its texture, from obj with mtl, ply, glb or gltf.

    The texture is None if no face has one. A single image is used as it is; several images, images that repeat, and
    materials with a color only are combined into a texture atlas. Alpha is dropped.
    Raises `MissingFileError` for a missing material file or image, `FileFormatError` if one is damaged or too large,
    and the errors of `load_mesh`.
    """
    mesh = load_mesh(path)
    read_materials = MATERIAL_READERS.get(Path(path).suffix.lower())
    materials = read_materials(Path(path)) if read_materials else None
    if materials is None or not materials.has_images():
        return mesh, None
    with reading(path):
        texture = texture_from_materials(materials, functools.cache(_read))
    return mesh, texture.to(mesh.vertices.dtype)


def _read(base_color: BaseColor) -> Floats:
    """Read the image of a material, and multiply it by the color."""
    data = base_color.image if isinstance(base_color.image, bytes) else _image_bytes(base_color)
    with reading(base_color.source if isinstance(base_color.image, bytes) else str(base_color.image)):
        image = colors_from_image(open_image(data))[..., :3]
    if base_color.color != BaseColor().color:
        image *= np.array(base_color.color, np.float32)
    return image


def _image_bytes(base_color: BaseColor) -> bytes:
    assert isinstance(base_color.image, Path)
    if not is_file(base_color.image):
        raise MissingFileError(
            f"{base_color.source}: image {base_color.image} not found; use load_mesh to load the geometry only"
        )
    return read_bytes(base_color.image)
