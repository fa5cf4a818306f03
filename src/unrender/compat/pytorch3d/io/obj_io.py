"""Wavefront OBJ in PyTorch3D's layout: arrays, and indices into them."""

import io
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.io._polygons import fan_corners, warn_of_invalid
from unrender.compat.pytorch3d.io._sources import (
    Source,
    folder_of,
    is_path,
    read_source,
    reading_source,
    writing,
)
from unrender.compat.pytorch3d.io.mtl_io import Colors, load_mtl, make_mesh_texture_atlas
from unrender.compat.pytorch3d.renderer.mesh.textures import TexturesAtlas, TexturesUV
from unrender.compat.pytorch3d.structures.join import join_meshes_as_batch
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.errors import FileFormatError, InputError
from unrender.io.files import atomic_write, is_file
from unrender.io.geometry_data import Indices, check_finite
from unrender.io.images import save_image
from unrender.io.mtl import find_file
from unrender.io.obj import Rows, corners, keyword_rows, table, vertices
from unrender.io.textures import load_textured_mesh

Device = torch.device | str
_NO_DIGITS = str.maketrans("", "", "-0123456789")
_SECOND, _THIRD = r"[^\s/]+/?([^\s/]*)\S*", r"[^\s/]+(?:/[^\s/]*/)?([^\s/]*)\S*"


class Faces(NamedTuple):
    """Indices of each triangle's vertices, normals, texture coordinates and material; −1 if there are none."""

    verts_idx: Tensor
    normals_idx: Tensor
    textures_idx: Tensor
    materials_idx: Tensor


class Properties(NamedTuple):
    """Contents of the file besides vertices and faces."""

    normals: Tensor | None
    verts_uvs: Tensor | None
    material_colors: dict[str, dict[str, Tensor]] | None
    texture_images: dict[str, Tensor] | None
    texture_atlas: Tensor | None


def load_obj(
    f: Source,
    load_textures: bool = True,
    create_texture_atlas: bool = False,
    texture_atlas_size: int = 4,
    texture_wrap: str | None = "repeat",
    device: Device = "cpu",
    path_manager: Any = None,
) -> tuple[Tensor, Faces, Properties]:
    """Load vertices, faces, and normals, texture coordinates, materials and texture images.

    Errors name the line of a damaged file. A missing material file is a warning.
    """
    if texture_wrap not in ("repeat", "clamp", None):
        raise InputError(
            f"load_obj: `texture_wrap` should be 'repeat', 'clamp' or None, got {texture_wrap!r}"
        )
    data = read_source(f)
    with reading_source(f):
        rows = keyword_rows(data, ("v", "vn", "vt", "f", "usemtl", "mtllib"))
        points, _ = vertices(*rows["v"]) if rows["v"][0] else (np.zeros((0, 3)), None)
        check_finite(points, "vertex")
        triangles, names = _faces(rows)
        normals = _optional(rows["vn"], "normal", 3, device)
        uvs = _optional(rows["vt"], "texture coordinate", 2, device)
    known = list(dict.fromkeys(name.strip() for name in rows["usemtl"][1]))
    material = [known.index(name) if name in known else -1 for name in names]
    of_vertices, of_normals, of_uvs = (torch.from_numpy(t).to(device) for t in triangles)
    faces = Faces(of_vertices, of_normals, of_uvs, torch.tensor(material, dtype=torch.int64).to(device))
    verts = torch.from_numpy(points.astype(np.float32)).to(device)
    colors, images = _materials(folder_of(f), rows, known, device) if load_textures else (None, None)
    atlas = None
    if create_texture_atlas and colors is not None:
        atlas_uvs = verts.new_empty(0, 2) if uvs is None else uvs
        atlas = make_mesh_texture_atlas(
            colors, images or {}, names, of_uvs, atlas_uvs, texture_atlas_size, texture_wrap
        )
    return verts, faces, Properties(normals, uvs, colors, images, atlas)


def _faces(rows: dict[str, Rows]) -> tuple[list[Indices], list[str]]:
    """Return vertices, normals and uvs of the corners of triangles, and the name of each triangle's material."""
    numbers, texts = rows["f"]
    _check_layouts(numbers, texts)
    first = [re.sub(r"/\S*", "", text) for text in texts]
    of_vertex, sizes = corners(numbers, first, np.array(rows["v"][0]), "vertex")
    order = fan_corners(sizes)
    found = [of_vertex[order].reshape(-1, 3)]
    for keyword, pattern, what in (("vn", _THIRD, "normal"), ("vt", _SECOND, "texture coordinate")):
        named = [re.sub(pattern, lambda corner: corner[1] or "0", text) for text in texts]
        defined = np.array(rows[keyword][0])
        index, _ = corners(numbers, named, defined, what, none=0, strict=False)
        warn_of_invalid(index[index != -1], len(defined), f"{what}s")
        exists = (index >= 0) & (index < len(defined))
        found.append(np.where(exists, index, -1)[order].reshape(-1, 3))
    uses = np.searchsorted(rows["usemtl"][0], numbers)
    names = ["", *(text.strip() for text in rows["usemtl"][1])]
    return found, [names[use] for use in np.repeat(uses, sizes - 2)]


def _check_layouts(numbers: list[int], texts: list[str]) -> None:
    """Raise FileFormatError for faces whose corners have more than three indices, or not the same number of them."""
    layouts: set[str] = set()
    for number, text in zip(numbers, texts, strict=True):
        layout = text.translate(_NO_DIGITS)
        if layout in layouts:
            continue
        slashes = {corner.count("/") for corner in text.split()}
        if len(slashes) > 1:
            raise FileFormatError(f"line {number}: Vertex properties are inconsistent: f {text[:60]}")
        if slashes and max(slashes) > 2:
            raise FileFormatError(f"line {number}: Face vertices can only have 3 properties: f {text[:60]}")
        layouts.add(layout)


def _optional(rows: Rows, what: str, columns: int, device: Device) -> Tensor | None:
    if not rows[0]:
        return None
    values = table(*rows, what, columns)[:, :columns]
    check_finite(values, what)
    return torch.from_numpy(values.astype(np.float32)).to(device)


def _materials(
    folder: Path, rows: dict[str, Rows], known: list[str], device: Device
) -> tuple[Colors | None, dict[str, Tensor] | None]:
    """Read the properties and texture images of the materials that the faces use."""
    if not rows["mtllib"][0]:
        if known:
            warnings.warn("No mtl file provided", stacklevel=3)
        return None, None
    colors: Colors = {}
    images: dict[str, Tensor] = {}
    libraries = [find_file(folder, text.strip()) for text in rows["mtllib"][1]]
    for library in libraries:
        if not is_file(library):
            warnings.warn(f"Mtl file does not exist: {library}", stacklevel=3)
            continue
        found, pictures = load_mtl(library, material_names=known, device=device)
        colors |= found
        images |= pictures
    return (colors, images) if any(map(is_file, libraries)) else (None, None)


def load_objs_as_meshes(
    files: Sequence[Source],
    device: Device | None = None,
    load_textures: bool = True,
    create_texture_atlas: bool = False,
    texture_atlas_size: int = 4,
    texture_wrap: str | None = "repeat",
    path_manager: Any = None,
) -> Meshes:
    """Load meshes with their texture images; several images of one mesh are packed side by side."""
    target_device = device or "cpu"
    meshes = []
    for f in files:
        tables = load_obj(
            f, load_textures, create_texture_atlas, texture_atlas_size, texture_wrap, target_device
        )
        meshes.append(_as_mesh(f, *tables))
    return meshes[0] if len(meshes) == 1 else join_meshes_as_batch(meshes)


def _as_mesh(f: Source, verts: Tensor, faces: Faces, aux: Properties) -> Meshes:
    textures: TexturesUV | TexturesAtlas | None = None
    if aux.texture_atlas is not None:
        textures = TexturesAtlas([aux.texture_atlas])
    elif aux.texture_images and aux.verts_uvs is not None:
        whole = len(aux.texture_images) == 1 and bool((faces.textures_idx >= 0).all())
        if whole or not is_path(f):
            image = next(iter(aux.texture_images.values()))
            textures = TexturesUV([image], [faces.textures_idx.clamp(min=0)], [aux.verts_uvs])
        else:
            textures = _packed(f, verts.device)
    return Meshes([verts], [faces.verts_idx], textures)


def _packed(path: Any, device: torch.device) -> TexturesUV | None:
    """Load the texture images of a mesh packed into one."""
    _, texture = load_textured_mesh(path)
    if texture is None:
        return None
    texture = texture.to(device)
    return TexturesUV([texture.image[..., :3]], [texture.faces], [texture.uvs], align_corners=False)


def save_obj(
    f: Source,
    verts: Tensor,
    faces: Tensor,
    decimal_places: int | None = None,
    path_manager: Any = None,
    *,
    normals: Tensor | None = None,
    faces_normals_idx: Tensor | None = None,
    verts_uvs: Tensor | None = None,
    faces_uvs: Tensor | None = None,
    texture_map: Tensor | None = None,
) -> None:
    """Save a mesh atomically, with normals, and with a texture image [H, W, 3] next to it."""
    wrong = len(verts) and (verts.dim() != 2 or verts.shape[1] != 3)
    if wrong or (faces.numel() and faces.shape[-1] != 3):
        raise InputError(
            f"save_obj: takes [V, 3] and [F, 3], got {list(verts.shape)} and {list(faces.shape)}"
        )
    if not len(verts) and not len(faces):
        warnings.warn("Empty 'verts' and 'faces' arguments provided", stacklevel=2)
    warn_of_invalid(faces, len(verts), "vertices")
    textured = texture_map is not None and verts_uvs is not None and faces_uvs is not None
    if textured and not is_path(f):
        raise InputError("save_obj: a texture needs a path: it is a file of its own next to the mesh")
    path = Path(f) if isinstance(f, str | os.PathLike) else Path()
    normal_ids = faces if normals is not None and faces_normals_idx is None else faces_normals_idx
    digits = "%.9g" if decimal_places is None else f"%.{decimal_places}f"
    with writing(f) as file:
        if textured:
            file.write(f"\nmtllib {path.stem}.mtl\nusemtl mesh\n\n".encode())
        np.savetxt(file, _numpy(verts.reshape(-1, 3)), " ".join(["v", digits, digits, digits]))
        if normals is not None:
            np.savetxt(file, _numpy(normals), " ".join(["vn", digits, digits, digits]))
        if textured:
            np.savetxt(file, _numpy(verts_uvs), " ".join(["vt", digits, digits]))
        columns = [faces, faces_uvs if textured else None, normal_ids if normals is not None else None]
        _write_faces(file, columns)
    if textured and texture_map is not None:
        save_image(texture_map.clamp(0, 1), path.with_suffix(".png"))
        with atomic_write(path.with_suffix(".mtl")) as file:
            file.write(f"newmtl mesh\nmap_Kd {path.stem}.png\n".encode())


def _write_faces(file: Any, columns: list[Tensor | None]) -> None:
    corner = ["%d", *("" if t is None else "%d" for t in columns[1:])]
    pattern = "/".join(corner).rstrip("/")
    given = [_numpy(t) + 1 for t in columns if t is not None]
    rows = np.stack(given, -1).reshape(-1, 3 * len(given)) if len(given[0]) else np.empty((0, 3 * len(given)))
    lines = io.BytesIO()
    np.savetxt(lines, rows, f"f {pattern} {pattern} {pattern}")
    file.write(lines.getvalue().removesuffix(b"\n"))  # as in PyTorch3D, the last line has no end


def _numpy(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().cpu().numpy()


__getattr__ = refuse_unknown(__name__)
