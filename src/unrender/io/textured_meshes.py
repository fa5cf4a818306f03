"""Saving of textured meshes: glb, obj with mtl and png, ply with png."""

import io
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from unrender._checked import describe_value
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh, vertex_normals
from unrender.geometry.topology import is_watertight
from unrender.io.files import FilePath, atomic_write
from unrender.io.formats import known_suffix
from unrender.io.geometry_data import Floats, GeometryData, Indices, floats_from_tensor, rgb_from_tensor
from unrender.io.glb_writer import EncodedImage, write_glb
from unrender.io.images import save_image
from unrender.io.meshes import save_mesh
from unrender.io.ply import write_ply
from unrender.render.texture import Texture

SUFFIXES = (".glb", ".obj", ".ply")
JPEG_QUALITY = 95
ImageFormat = Literal["jpg", "png"]


def save_textured_mesh(
    mesh: Mesh, texture: Texture | None, path: FilePath, *, image_format: ImageFormat = "jpg"
) -> list[Path]:
    """Save a mesh with its texture to glb, obj or ply, each file atomically; return the files written.

    glb: one file with normals and a PBR material (roughness 1, metallic 0), whose base color is the texture as
    `image_format`, jpg being less than half the size of png. obj: with normals, and an mtl and a png file of the same
    name beside it. ply: with normals, UV coordinates as `s` and `t`, and a png file beside it, which a comment names.
    Positions are as in the mesh; nothing is rotated or scaled. Without texture, glb files have vertex colors and
    normals, and others are as `save_mesh` writes them.
    Raises InputError for a batch, a mesh without faces, or a texture of another mesh.
    """
    target, suffix = Path(path), known_suffix(path, SUFFIXES)
    _check(mesh, texture, target)
    if texture is not None:
        texture = texture.replace(image=_rgb(texture.image))
    if texture is None and suffix != ".glb":
        save_mesh(mesh, target)
        return [target]
    if suffix == ".glb":
        _save_glb(mesh, texture, target, image_format)
        return [target]
    assert texture is not None
    image = target.with_suffix(".png")
    save_image(texture.image, image)
    if suffix == ".ply":
        split = _split(mesh, texture)
        with atomic_write(target) as file:
            write_ply(file, split.geometry, uvs=split.uvs, texture_file=image.name)
        return [target, image]
    library = target.with_suffix(".mtl")
    with atomic_write(library) as file:
        file.write(_material(image.name).encode())
    _save_obj(mesh, texture, target, library.name)
    return [target, library, image]


def _check(mesh: Mesh, texture: Texture | None, path: Path) -> None:
    if mesh.vertices.ndim != 2:
        raise InputError(
            f"save_textured_mesh: expected a single mesh, got a batch with vertices {describe_value(mesh.vertices)}; "
            "index the batch"
        )
    if len(mesh.faces) == 0 or not mesh.vertices.isfinite().all():
        reason = "not all vertices are finite" if len(mesh.faces) else "it has no faces"
        raise InputError(f"save_textured_mesh: cannot save to {path}: {reason}")
    if texture is not None and len(texture.faces) != len(mesh.faces):
        raise InputError(
            f"save_textured_mesh: `texture` has {len(texture.faces)} faces but the mesh has {len(mesh.faces)}"
        )


class _SplitMesh(NamedTuple):
    """A mesh whose vertices are split along the seams of its texture."""

    geometry: GeometryData
    uvs: Floats


def _split(mesh: Mesh, texture: Texture) -> _SplitMesh:
    pairs = torch.stack([mesh.faces.flatten(), texture.faces.flatten()], 1)
    rows, faces = pairs.unique(dim=0, return_inverse=True)
    normals = floats_from_tensor(vertex_normals(mesh)[rows[:, 0]])
    geometry = GeometryData(
        floats_from_tensor(mesh.vertices[rows[:, 0]]), _indices(faces.view(-1, 3)), _unit(normals)
    )
    return _SplitMesh(geometry, floats_from_tensor(texture.uvs[rows[:, 1]]))


def _save_glb(mesh: Mesh, texture: Texture | None, path: Path, image_format: ImageFormat) -> None:
    double_sided = not is_watertight(mesh)
    if texture is None:
        normals = _unit(floats_from_tensor(vertex_normals(mesh)))
        points, colors = floats_from_tensor(mesh.vertices), rgb_from_tensor(mesh.vertex_colors)
        geometry = GeometryData(points, _indices(mesh.faces), normals, colors)
        with atomic_write(path) as file:
            write_glb(file, geometry, has_material=True, double_sided=double_sided)
        return
    split = _split(mesh, texture)
    image = _encode(texture, image_format)
    with atomic_write(path) as file:
        write_glb(file, split.geometry, uvs=split.uvs, image=image, double_sided=double_sided)


def _rgb(image: torch.Tensor) -> torch.Tensor:
    """Convert a gray, RGB or RGBA image to RGB in [0, 1]; alpha is dropped."""
    rgb = rgb_from_tensor(image.flatten(0, 1))
    assert rgb is not None
    return torch.from_numpy(rgb).view(*image.shape[:2], 3)


def _encode(texture: Texture, image_format: ImageFormat) -> EncodedImage:
    from PIL import Image

    image = Image.fromarray((floats_from_tensor(texture.image) * 255).round().astype(np.uint8))
    data = io.BytesIO()
    if image_format == "jpg":
        image.save(data, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
        return EncodedImage(data.getvalue(), "image/jpeg")
    image.save(data, "PNG", optimize=True)
    return EncodedImage(data.getvalue(), "image/png")


def _save_obj(mesh: Mesh, texture: Texture, path: Path, library: str) -> None:
    digits = "%.17g" if mesh.vertices.dtype == torch.float64 else "%.9g"
    corners, uv_ids = (_indices(faces) + 1 for faces in (mesh.faces, texture.faces))
    columns = np.stack([corners, uv_ids, corners], -1).reshape(-1, 9)
    with atomic_write(path) as file:
        file.write(f"mtllib {library}\n".encode())
        np.savetxt(file, floats_from_tensor(mesh.vertices), f"v {digits} {digits} {digits}")
        np.savetxt(file, floats_from_tensor(texture.uvs), "vt %.7f %.7f")
        np.savetxt(file, _unit(floats_from_tensor(vertex_normals(mesh))), "vn %.5f %.5f %.5f")
        file.write(b"usemtl material\n")
        np.savetxt(file, columns, "f %d/%d/%d %d/%d/%d %d/%d/%d")


def _material(image: str) -> str:
    """Return a material library: diffuse, with the image as color."""
    return f"newmtl material\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\nPr 1\nPm 0\nmap_Kd {image}\n"


def _indices(faces: torch.Tensor) -> Indices:
    return faces.cpu().numpy().astype(np.int64)


def _unit(normals: Floats) -> Floats:
    """Replace the zero normals of degenerate parts, which formats do not allow, with +z."""
    return np.where((normals == 0).all(axis=1, keepdims=True), np.array([0, 0, 1], normals.dtype), normals)
