"""One picture cut from those of all materials."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from unrender.errors import FileFormatError
from unrender.io.contents import Floats, Indices
from unrender.io.face_textures import Outside, Paint, Painting
from unrender.render.texture import Texture

MAX_TEXELS = 1 << 27
ROUNDING = 1e-5
"""By which a uv may leave the picture and still be meant to lie on its border."""
MARGIN = 2
"""Texels around those that a uv lies on: one that is mixed in, and one against rounding."""


class Tile(NamedTuple):
    """A part of a picture, and where the corners of the faces lie on it."""

    picture: Floats
    places: Floats
    """[faces, corners, 2]: texels to the right of the upper left corner, and below it."""


def texture_from_painting(painting: Painting, read: Callable[[Paint], Floats]) -> Texture:
    """Make a texture of a painting's one picture as it is, or of the parts of its pictures that faces lie on."""
    used = np.unique(painting.paint_ids)
    if len(used) == 1:
        paint = painting.paints[used[0]]
        uvs = _finite(painting.uvs[np.unique(painting.corners)], paint)
        if not _leaves(_moved(uvs, paint)):
            return _texture(read(paint), _moved(painting.uvs, paint), painting.corners)
    return _stacked(painting, used, read)


def _texture(picture: Floats, uvs: Floats, corners: Indices) -> Texture:
    uvs = np.nan_to_num(uvs).astype(np.float32)
    return Texture(torch.from_numpy(picture), torch.from_numpy(uvs), torch.from_numpy(corners))


def _stacked(painting: Painting, used: Indices, read: Callable[[Paint], Floats]) -> Texture:
    """Put a tile of each paint below the one before; each corner gets a uv of its own."""
    tiles, places, top, width = [], np.zeros((*painting.corners.shape, 2)), 0, 0
    for i in used:
        faces = painting.paint_ids == i
        tile = _cut(painting.paints[i], painting, faces, read)
        tiles.append(tile.picture)
        places[faces] = tile.places + np.array([0, top])
        top, width = top + tile.picture.shape[0], max(width, tile.picture.shape[1])
        _check_size(width, top, "the pictures of all materials, one below the other: make them smaller")
    picture = np.zeros((top, width, 3), np.float32)
    for tile_picture in reversed(tiles):
        top -= len(tile_picture)
        picture[top : top + len(tile_picture), : tile_picture.shape[1]] = tile_picture
    uvs = places.reshape(-1, 2) / (width, len(picture)) * (1, -1) + (0, 1)
    return _texture(picture, uvs, np.arange(len(uvs)).reshape(-1, 3))


def _cut(paint: Paint, painting: Painting, faces: Indices, read: Callable[[Paint], Floats]) -> Tile:
    """Cut out what the faces of one paint lie on, with the texels around that are mixed in."""
    if paint.picture is None:
        size = 2 * MARGIN + 1
        middle = np.full((int(faces.sum()), 3, 2), size / 2)
        return Tile(np.full((size, size, 3), paint.color, np.float32), middle)
    picture = read(paint)
    uvs = _moved(_finite(painting.uvs[painting.corners[faces]], paint), paint)
    outside: tuple[Outside, Outside] = paint.outside if _leaves(uvs) else ("clamp", "clamp")
    for axis in range(2):
        uvs[..., axis] -= _whole_pictures(uvs[..., axis], outside[axis])
    places = (uvs * (1, -1) + (0, 1)) * (picture.shape[1], picture.shape[0])
    first = np.floor(places.min(axis=(0, 1))) - MARGIN
    size = np.ceil(places.max(axis=(0, 1))) + MARGIN - first
    _check_size(
        float(size[0]),
        float(size[1]),
        f"{paint.named_in}: a face repeats its picture: repeat it in the picture itself",
    )
    columns, rows = (
        _texels(first[axis] + np.arange(size[axis]), picture.shape[1 - axis], outside[axis])
        for axis in range(2)
    )
    return Tile(picture[rows[:, None], columns], places - first)


def _moved(uvs: Floats, paint: Paint) -> Floats:
    moved: Floats = uvs.astype(np.float64) * paint.scale + paint.offset
    return moved


def _finite(uvs: Floats, paint: Paint) -> Floats:
    if not np.isfinite(uvs).all():
        raise FileFormatError(f"{paint.named_in}: a face lies on its picture at a place that is not finite")
    return uvs


def _leaves(uvs: Floats) -> bool:
    return bool((np.abs(uvs - 0.5) > 0.5 + ROUNDING).any())


def _whole_pictures(values: Floats, outside: Outside) -> Floats:
    """Count by how many whole pictures each face [faces, corners] can be moved without a change."""
    period = {"repeat": 1.0, "mirror": 2.0, "clamp": 0.0}[outside]
    moves: Floats = np.floor(values.min(axis=1, keepdims=True) / (period or 1.0)) * period
    return moves


def _texels(index: Floats, size: int, outside: Outside) -> Indices:
    """Say which texel of a row or column stands at a place that may lie beyond its ends."""
    whole: Indices = index.astype(np.int64)
    if outside == "clamp":
        return whole.clip(0, size - 1)
    if outside == "repeat":
        return whole % size
    there = whole % (2 * size)
    mirrored: Indices = np.minimum(there, 2 * size - 1 - there)
    return mirrored


def _check_size(width: float, height: float, what: str) -> None:
    if width * height > MAX_TEXELS:
        raise FileFormatError(f"{width:.0f} × {height:.0f} texels, more than {MAX_TEXELS}, for {what}")
