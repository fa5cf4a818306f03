"""Texture atlas: one image composed of the images of all materials."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from unrender.errors import FileFormatError
from unrender.io.face_materials import BaseColor, FaceMaterials, WrapMode
from unrender.io.geometry_data import Floats, Indices
from unrender.render.texture import Texture

MAX_TEXELS = 1 << 27
MIN_TEXELS, MAX_REPEATS = 1 << 24, 16
"""Size up to which any image is repeated, and beyond it the maximum number of repetitions."""
ROUNDING = 1e-5
"""Tolerance for UV coordinates outside [0, 1] that are meant to be on the border."""
MARGIN = 2
"""Texels around a tile: one for bilinear filtering, and one against rounding."""


class Tile(NamedTuple):
    """A part of an image, and the positions of the faces' corners in it."""

    image: Floats
    positions: Floats
    """[faces, corners, 2]: texels to the right of the upper left corner, and below it."""


def texture_from_materials(materials: FaceMaterials, read: Callable[[BaseColor], Floats]) -> Texture:
    """Create a texture from a single image as it is, or from the used parts of several images."""
    used = np.unique(materials.material_ids)
    if len(used) == 1:
        base_color = materials.base_colors[used[0]]
        uvs = _check_finite(materials.uvs[np.unique(materials.uv_ids)], base_color)
        if not _exceeds_image(_transform(uvs, base_color)):
            return _texture(read(base_color), _transform(materials.uvs, base_color), materials.uv_ids)
    return _stack_tiles(materials, used, read)


def _texture(image: Floats, uvs: Floats, uv_ids: Indices) -> Texture:
    uvs = np.nan_to_num(uvs).astype(np.float32)
    return Texture(torch.from_numpy(image), torch.from_numpy(uvs), torch.from_numpy(uv_ids))


def _stack_tiles(materials: FaceMaterials, used: Indices, read: Callable[[BaseColor], Floats]) -> Texture:
    """Stack a tile of each material vertically; each face corner gets its own UV coordinates."""
    images, positions, top, width = [], np.zeros((*materials.uv_ids.shape, 2)), 0, 0
    for i in used:
        faces = materials.material_ids == i
        tile = _crop(materials.base_colors[i], materials.uvs[materials.uv_ids[faces]], read)
        images.append(tile.image)
        positions[faces] = tile.positions + np.array([0, top])
        top, width = top + tile.image.shape[0], max(width, tile.image.shape[1])
        _check_size(width, top, "for the images of all materials; scale them down")
    atlas = images[0] if len(images) == 1 else np.zeros((top, width, 3), np.float32)
    while images and atlas is not images[0]:
        image = images.pop()  # free each image once it is copied
        top -= len(image)
        atlas[top : top + len(image), : image.shape[1]] = image
    uvs = positions.reshape(-1, 2) / (width, len(atlas)) * (1, -1) + (0, 1)
    return _texture(atlas, uvs, np.arange(len(uvs)).reshape(-1, 3))


def _crop(base_color: BaseColor, face_uvs: Floats, read: Callable[[BaseColor], Floats]) -> Tile:
    """Crop the image of a material to the faces' UV coordinates [faces, corners, 2], with a margin for filtering."""
    if base_color.image is None:
        size = 2 * MARGIN + 1
        center = np.full((len(face_uvs), 3, 2), size / 2)
        return Tile(np.full((size, size, 3), base_color.color, np.float32), center)
    image = read(base_color)
    uvs = _transform(_check_finite(face_uvs, base_color), base_color)
    wrap: tuple[WrapMode, WrapMode] = base_color.wrap if _exceeds_image(uvs) else ("clamp", "clamp")
    for axis in range(2):
        uvs[..., axis] -= _periodic_shift(uvs[..., axis], wrap[axis])
    positions = (uvs * (1, -1) + (0, 1)) * (image.shape[1], image.shape[0])
    first = np.floor(positions.min(axis=(0, 1))) - MARGIN
    size = np.ceil(positions.max(axis=(0, 1))) + MARGIN - first
    _check_size(
        float(size[0]),
        float(size[1]),
        f"for {base_color.source}: a face repeats its image too often; repeat it in the image itself",
        max(MIN_TEXELS, MAX_REPEATS * image.shape[0] * image.shape[1]),
    )
    columns, rows = (
        _texels(first[axis] + np.arange(size[axis]), image.shape[1 - axis], wrap[axis]) for axis in range(2)
    )
    return Tile(image[rows[:, None], columns], positions - first)


def _transform(uvs: Floats, base_color: BaseColor) -> Floats:
    transformed: Floats = uvs.astype(np.float64) * base_color.scale + base_color.offset
    return transformed


def _check_finite(uvs: Floats, base_color: BaseColor) -> Floats:
    if not np.isfinite(uvs).all():
        raise FileFormatError(f"{base_color.source}: a face has texture coordinates that are not finite")
    return uvs


def _exceeds_image(uvs: Floats) -> bool:
    return bool((np.abs(uvs - 0.5) > 0.5 + ROUNDING).any())


def _periodic_shift(values: Floats, wrap: WrapMode) -> Floats:
    """Compute the whole periods by which each face [faces, corners] can be shifted without a change."""
    period = {"repeat": 1.0, "mirror": 2.0, "clamp": 0.0}[wrap]
    shift: Floats = np.floor(values.min(axis=1, keepdims=True) / (period or 1.0)) * period
    return shift


def _texels(index: Floats, size: int, wrap: WrapMode) -> Indices:
    """Map texel indices of a row or column, possibly out of range, to valid ones."""
    whole: Indices = index.astype(np.int64)
    if wrap == "clamp":
        return whole.clip(0, size - 1)
    if wrap == "repeat":
        return whole % size
    folded = whole % (2 * size)
    mirrored: Indices = np.minimum(folded, 2 * size - 1 - folded)
    return mirrored


def _check_size(width: float, height: float, where: str, limit: int = MAX_TEXELS) -> None:
    limit = min(limit, MAX_TEXELS)
    if not width * height <= limit:
        raise FileFormatError(
            f"the texture would have {width:.0f} × {height:.0f} texels, more than {limit}, {where}"
        )
