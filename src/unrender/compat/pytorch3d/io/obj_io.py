"""Wavefront OBJ in PyTorch3D's layout: arrays, and indices into them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.mesh.textures import TexturesUV
from unrender.compat.pytorch3d.structures.join import join_meshes_as_batch
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.errors import InputError
from unrender.io.files import FilePath, MissingFileError, atomic_write, is_file, read_bytes, reading
from unrender.io.geometry_data import Indices, check_finite
from unrender.io.images import load_image, save_image
from unrender.io.mtl import find_file, read_mtl
from unrender.io.obj import Rows, corners, keyword_rows, table, vertices
from unrender.io.polygons import triangulate
from unrender.io.textures import load_textured_mesh

Device = torch.device | str
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
    texture_atlas: None


def load_obj(
    f: FilePath,
    load_textures: bool = True,
    create_texture_atlas: bool = False,
    texture_atlas_size: int = 4,
    texture_wrap: str | None = "repeat",
    device: Device = "cpu",
    path_manager: Any = None,
) -> tuple[Tensor, Faces, Properties]:
    """Load vertices, faces, and normals, texture coordinates, materials and texture images.

    Errors name the line of a damaged file. Texture atlases are not supported.
    """
    if create_texture_atlas:
        raise InputError(
            "load_obj: texture atlases are not supported; load with `create_texture_atlas=False`"
        )
    path = Path(f)
    data = read_bytes(path)
    with reading(path):
        rows = keyword_rows(data, ("v", "vn", "vt", "f", "usemtl", "mtllib"))
        points, _ = vertices(*rows["v"])
        check_finite(points, "vertex")
        triangles, names = _faces(rows, points)
        normals = _optional(rows["vn"], "normal", 3, device)
        uvs = _optional(rows["vt"], "texture coordinate", 2, device)
    colors, images = _materials(path, rows, device) if load_textures else (None, None)
    known = list(colors or [])
    material = [known.index(name) if name in known else -1 for name in names]
    of_vertices, of_normals, of_uvs = (torch.from_numpy(t).to(device) for t in triangles)
    faces = Faces(of_vertices, of_normals, of_uvs, torch.tensor(material, dtype=torch.int64).to(device))
    verts = torch.from_numpy(points.astype(np.float32)).to(device)
    return verts, faces, Properties(normals, uvs, colors, images, None)


def _faces(rows: dict[str, Rows], points: Any) -> tuple[list[Indices], list[str]]:
    """Return vertices, normals and uvs of the corners of triangles, and the name of each triangle's material."""
    numbers, texts = rows["f"]
    first = [re.sub(r"/\S*", "", text) for text in texts]
    of_vertex, sizes = corners(numbers, first, np.array(rows["v"][0]), "vertex")
    order = triangulate(np.arange(len(of_vertex)), sizes, points[of_vertex])
    found = [of_vertex[order]]
    for keyword, pattern, what in (("vn", _THIRD, "normal"), ("vt", _SECOND, "texture coordinate")):
        named = [re.sub(pattern, lambda corner: corner[1] or "0", text) for text in texts]
        index, _ = corners(numbers, named, np.array(rows[keyword][0]), what, none=0)
        found.append(index[order])
    uses = np.searchsorted(rows["usemtl"][0], numbers)
    names = ["", *(text.strip() for text in rows["usemtl"][1])]
    return found, [names[use] for use in np.repeat(uses, sizes - 2)]


def _optional(rows: Rows, what: str, columns: int, device: Device) -> Tensor | None:
    if not rows[0]:
        return None
    values = table(*rows, what, columns)[:, :columns]
    check_finite(values, what)
    return torch.from_numpy(values.astype(np.float32)).to(device)


def _materials(
    path: Path, rows: dict[str, Rows], device: Device
) -> tuple[dict[str, dict[str, Tensor]] | None, dict[str, Tensor] | None]:
    """Read diffuse colors and texture images of all materials; other properties have PyTorch3D's defaults."""
    if not rows["mtllib"][0]:
        return None, None
    colors: dict[str, dict[str, Tensor]] = {}
    images: dict[str, Tensor] = {}
    for text in rows["mtllib"][1]:
        library = find_file(path.parent, text.strip())
        if not is_file(library):
            raise MissingFileError(
                f"{path}: material file {library} not found; use load_textures=False to load without textures"
            )
        for name, material in read_mtl(library).items():
            colors[name] = {
                "ambient_color": torch.ones(3, device=device),
                "diffuse_color": torch.tensor(material.color, device=device),
                "specular_color": torch.zeros(3, device=device),
                "shininess": torch.ones(1, device=device),
            }
            image = material.base_color(path).image
            if isinstance(image, Path):
                images[name] = load_image(image)[..., :3].to(device)
    return colors, images


def load_objs_as_meshes(
    files: Sequence[FilePath],
    device: Device | None = None,
    load_textures: bool = True,
    create_texture_atlas: bool = False,
    texture_atlas_size: int = 4,
    texture_wrap: str | None = "repeat",
    path_manager: Any = None,
) -> Meshes:
    """Load meshes with their texture images; several images of one mesh are packed side by side."""
    target_device = device or "cpu"
    meshes = [_load_mesh(Path(f), target_device, load_textures, create_texture_atlas) for f in files]
    return meshes[0] if len(meshes) == 1 else join_meshes_as_batch(meshes)


def _load_mesh(path: Path, device: Device, load_textures: bool, create_texture_atlas: bool) -> Meshes:
    verts, faces, aux = load_obj(path, load_textures, create_texture_atlas, device=device)
    textures = None
    if aux.texture_images and aux.verts_uvs is not None:
        whole = len(aux.texture_images) == 1 and bool((faces.textures_idx >= 0).all())
        if whole:
            image = next(iter(aux.texture_images.values()))
            textures = TexturesUV([image], [faces.textures_idx], [aux.verts_uvs])
        else:
            _, painted = load_textured_mesh(path)
            if painted is not None:
                textures = TexturesUV(
                    [painted.image[..., :3].to(device)],
                    [painted.faces.to(device)],
                    [painted.uvs.to(device)],
                    align_corners=False,
                )
    return Meshes([verts], [faces.verts_idx], textures)


def save_obj(
    f: FilePath,
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
    if verts.dim() != 2 or verts.shape[1] != 3 or (faces.numel() and faces.shape[-1] != 3):
        raise InputError(
            f"save_obj: takes [V, 3] and [F, 3], got {list(verts.shape)} and {list(faces.shape)}"
        )
    if faces.numel() and not (int(faces.min()) >= 0 and int(faces.max()) < len(verts)):
        raise InputError(
            f"save_obj: faces index vertices {int(faces.min())} to {int(faces.max())} of {len(verts)}"
        )
    path, textured = Path(f), texture_map is not None and verts_uvs is not None and faces_uvs is not None
    normal_ids = faces if normals is not None and faces_normals_idx is None else faces_normals_idx
    digits = "%.9g" if decimal_places is None else f"%.{decimal_places}f"
    with atomic_write(path) as file:
        if textured:
            file.write(f"\nmtllib {path.stem}.mtl\nusemtl mesh\n\n".encode())
        np.savetxt(file, _numpy(verts), " ".join(["v", digits, digits, digits]))
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
    np.savetxt(file, rows, f"f {pattern} {pattern} {pattern}")


def _numpy(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().cpu().numpy()


__getattr__ = refuse_unknown(__name__)
