"""Material libraries of Wavefront OBJ, and texture atlases made from them."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.io._sources import Source, folder_of, read_source, reading_source
from unrender.errors import FileFormatError
from unrender.io.files import is_file
from unrender.io.images import load_image
from unrender.io.lines import is_number, split_lines
from unrender.io.mtl import find_file, map_file

Device = torch.device | str
Colors = dict[str, dict[str, Tensor]]
_PROPERTIES = {"ka": "ambient_color", "kd": "diffuse_color", "ks": "specular_color", "ns": "shininess"}


def load_mtl(
    f: Source,
    *,
    material_names: Sequence[str],
    data_dir: str | Path | None = None,
    device: Device = "cpu",
    path_manager: Any = None,
) -> tuple[Colors, dict[str, Tensor]]:
    """Load the properties and texture images of materials, by name; without names, of all.

    A material has the properties that the file gives it. A missing image is a warning.
    """
    folder = folder_of(f) if data_dir is None else Path(data_dir)
    found, files = _parse_mtl(f, path_manager, device)
    colors: Colors = {}
    images: dict[str, Tensor] = {}
    for name in material_names or list(found):
        if name in found:
            colors[name] = found[name]
        if name in files:
            path = find_file(folder, files[name])
            if is_file(path):
                images[name] = load_image(path)[..., :3].to(device)
            else:
                warnings.warn(f"Texture file does not exist: {path}", stacklevel=2)
    return colors, images


def _parse_mtl(f: Source, path_manager: Any, device: Device = "cpu") -> tuple[Colors, dict[str, str]]:
    """Return the properties, and the name of the diffuse image, of each material."""
    data = read_source(f)
    with reading_source(f):
        return _parse(data, device)


def _parse(data: bytes, device: Device) -> tuple[Colors, dict[str, str]]:
    colors: Colors = {}
    files: dict[str, str] = {}
    name = ""
    for number, line in enumerate(split_lines(data), 1):
        keyword, *rest = line.partition(" #")[0].split(None, 1)[:2] or ("",)
        keyword, text = keyword.lower(), rest[0].strip() if rest else ""
        if keyword == "newmtl":
            name = text
            colors.setdefault(name, {})
        elif keyword in _PROPERTIES and name in colors:
            colors[name][_PROPERTIES[keyword]] = _numbers(text, keyword, number).to(device)
        elif keyword == "map_kd" and name in colors:
            files[name] = map_file(text, number)
    return colors, files


def _numbers(text: str, keyword: str, line: int) -> Tensor:
    count = 1 if keyword == "ns" else 3
    words = text.split()[:count]
    words = words * count if len(words) == 1 else words
    if len(words) < count or not all(map(is_number, words)):
        raise FileFormatError(
            f"line {line}: {keyword.title()} should have {count} numbers, got {text[:40]!r}"
        )
    values = torch.tensor([float(word) for word in words])
    if not bool(values.isfinite().all()):
        raise FileFormatError(f"line {line}: {keyword.title()} should be finite, got {text[:40]!r}")
    return values


def make_mesh_texture_atlas(
    material_properties: Mapping[str, Mapping[str, Tensor]],
    texture_images: Mapping[str, Tensor],
    face_material_names: Any,
    faces_uvs: Tensor,
    verts_uvs: Tensor,
    texture_size: int,
    texture_wrap: str | None,
) -> Tensor:
    """Return a small square texture [F, R, R, 3] of each face: its image, else its diffuse color, else white."""
    names = np.asarray(face_material_names)
    atlas = torch.ones(len(faces_uvs), texture_size, texture_size, 3, device=faces_uvs.device)
    for name, properties in material_properties.items():
        if "diffuse_color" in properties:
            atlas[torch.from_numpy(names == name).to(atlas.device)] = properties["diffuse_color"]
    for name, image in texture_images.items():
        used = torch.from_numpy(names == name).to(atlas.device) & (faces_uvs >= 0).all(1)
        uvs = verts_uvs[faces_uvs[used]]
        if texture_wrap == "repeat" and bool(((uvs < 0) | (uvs > 1)).any()):
            uvs = uvs % 1
        elif texture_wrap == "clamp":
            uvs = uvs.clamp(0, 1)
        atlas[used] = make_material_atlas(image[..., :3].flip(0).to(uvs), uvs, texture_size)
    return atlas


def make_material_atlas(image: Tensor, faces_verts_uvs: Tensor, texture_size: int) -> Tensor:
    """Sample an image, whose first row is at v = 0, at the centers of R² triangles of each face [F, 3, 2].

    Cell (y, x) of the square has the triangle at x, y for x + y < R; the others are the triangles that point the other
    way, at R − 1 − x and R − 1 − y (Liu et al., Soft Rasterizer, 2019).
    """
    step = torch.arange(texture_size, device=faces_verts_uvs.device)
    y, x = torch.meshgrid(step, step, indexing="ij")
    cells = torch.stack([x, y], -1)
    upright = cells.sum(-1, keepdim=True) < texture_size
    first_two = torch.where(upright, cells + 1 / 3, texture_size - 1 - cells + 2 / 3) / texture_size
    weights = torch.cat([first_two, 1 - first_two.sum(-1, keepdim=True)], -1).to(faces_verts_uvs)
    return _bilinear_interpolation_grid_sample(image, torch.einsum("yxk,fkc->fyxc", weights, faces_verts_uvs))


def _bilinear_interpolation_grid_sample(image: Tensor, grid: Tensor) -> Tensor:
    """Sample [H, W, D] at positions in [0, 1], from the center of the first texel to that of the last."""
    planes = image.movedim(-1, 0)[None].expand(len(grid), -1, -1, -1)
    return grid_sample(planes, grid * 2 - 1, mode="bilinear", align_corners=True).movedim(1, -1)


_bilinear_interpolation_vectorized = _bilinear_interpolation_grid_sample

__getattr__ = refuse_unknown(__name__)
