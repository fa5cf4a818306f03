"""Barycentric coordinates of fragments, and packing of rectangles."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.ops.interp_face_attrs import interpolate_face_attributes


def _clip_barycentric_coordinates(bary: Tensor) -> Tensor:
    """Clamp weights at 0, and normalize them; empty slots stay −1."""
    if bary.shape[-1] != 3:
        raise ValueError(f"takes barycentric coordinates [..., 3], got {list(bary.shape)}")
    clipped = bary.clamp(min=0)
    normalized = clipped / clipped.sum(-1, keepdim=True).clamp(min=1e-5)
    return torch.where((bary == -1).all(-1, keepdim=True), -1, normalized)


def _interpolate_zbuf(pix_to_face: Tensor, barycentric_coords: Tensor, meshes: Any) -> Tensor:
    """Return the depths of fragments, −1 in empty slots, from the z of the vertices."""
    corners = meshes.verts_packed()[meshes.faces_packed()][..., 2:]
    depths = interpolate_face_attributes(pix_to_face, barycentric_coords, corners)[..., 0]
    return torch.where(pix_to_face < 0, -1.0, depths)


class Rectangle(NamedTuple):
    """Width and height of an image, and a number that equal images share."""

    xsize: int
    ysize: int
    identifier: int


class PackedRectangle(NamedTuple):
    """Where an image is: its lower corner, whether it is transposed, and whether it is the first of its number."""

    x: int
    y: int
    flipped: bool
    is_first: bool


class PackedRectangles(NamedTuple):
    """Size of a sheet, and the positions of the images on it."""

    total_size: tuple[int, int]
    locations: list[PackedRectangle]


def pack_rectangles(sizes: Sequence[tuple[int, int]]) -> PackedRectangles:
    """Place images [(width, height)] on one sheet."""
    return pack_unique_rectangles([Rectangle(x, y, i) for i, (x, y) in enumerate(sizes)])


def pack_unique_rectangles(rectangles: Sequence[Rectangle]) -> PackedRectangles:
    """Place images on one sheet, each number once: in rows as wide as the longest image, long sides first."""
    if len(rectangles) < 2:
        raise ValueError("Cannot pack less than two boxes")
    unique: dict[int, Rectangle] = {}
    for one in rectangles:
        unique.setdefault(one.identifier, one)
    if len(unique) == 1:
        size, positions = tuple(rectangles[0][:2]), {rectangles[0].identifier: (0, 0, False)}
    else:
        size, positions = _in_rows(sorted(unique.values(), key=lambda one: max(one[:2]))[::-1])
    used: set[int] = set()
    locations = []
    for one in rectangles:
        locations.append(PackedRectangle(*positions[one.identifier], one.identifier not in used))
        used.add(one.identifier)
    return PackedRectangles((size[0], size[1]), locations)


def _in_rows(rectangles: Sequence[Rectangle]) -> tuple[tuple[int, int], dict[int, tuple[int, int, bool]]]:
    """Return the size of the sheet, and the corner of each image and whether it is transposed."""
    width, height = max(rectangles[0][:2]), 0
    free: list[tuple[int, int, int, int]] = []
    positions = {}
    for one in rectangles:
        long, short = max(one[:2]), min(one[:2])
        fitting = (
            (spot, sides)
            for spot in free
            for sides in ((long, short), (short, long))
            if sides[0] <= spot[2] and sides[1] <= spot[3]
        )
        spot, (wide, tall) = next(fitting, ((0, height, width, short), (long, short)))
        if spot in free:
            free.remove(spot)
        else:
            height += short
        x, y, spot_width, spot_height = spot
        free += [(x + wide, y, spot_width - wide, tall), (x, y + tall, spot_width, spot_height - tall)]
        positions[one.identifier] = (x, y, (wide, tall) != (one.xsize, one.ysize))
    return (width, height), positions


__getattr__ = refuse_unknown(__name__)
