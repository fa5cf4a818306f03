"""Volumes of the intersections of convex boxes, by clipping."""

from typing import NamedTuple

import torch
from torch import Tensor

_QUADS = torch.tensor(((0, 1, 2, 3), (3, 2, 6, 7), (0, 1, 5, 4), (0, 3, 7, 4), (1, 2, 6, 5), (4, 5, 6, 7)))
_FLAT, _ROUGHNESS = 1e-12, 10.0
"""Distance from a plane below which a point is in it; at least so many times how far sides are from being flat."""


class _Sides(NamedTuple):
    """Sides of boxes: corners [P, 6, 4, 3], and planes with outward unit normals n [P, 6, 3] and n · x ≤ d inside."""

    corners: Tensor
    normals: Tensor
    offsets: Tensor
    """d [P, 6]."""

    def heights(self, points: Tensor) -> Tensor:
        """Return how far points [P, …, 3] are outside of each plane [P, …, 6]."""
        flat = points.flatten(1, -2) @ self.normals.mT - self.offsets[:, None]
        return flat.view(*points.shape[:-1], 6)


def intersection_volumes(first: Tensor, second: Tensor) -> Tensor:
    """Return the volume [P] of the points in both boxes of each pair [P, 8, 3].

    The surface of an intersection is each side of one box clipped by the planes of the other; its volume is the sum of
    the pyramids from these polygons to a point inside. Sides that both boxes share are counted once.
    """
    if not len(first):
        return first.new_zeros(0)
    sides = _sides(first), _sides(second)
    flatness = torch.stack([_roughness(own) for own in sides]).amax(0) * _ROUGHNESS + _FLAT
    center = first.mean(1, keepdim=True)
    areas = [_clipped_areas(own, other, flatness) for own, other in zip(sides, reversed(sides), strict=True)]
    pyramids = [-own.heights(center)[:, 0] * area / 3 for own, area in zip(sides, areas, strict=True)]
    shared = _are_shared(sides[1], sides[0], flatness)
    return (pyramids[0] + torch.where(shared, 0, pyramids[1])).sum(1).clamp(min=0)


def _sides(boxes: Tensor) -> _Sides:
    corners = boxes[:, _QUADS.to(boxes.device)]
    normals = torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    normals = torch.nn.functional.normalize(normals, dim=2)
    middles = corners.mean(2)
    normals = normals * ((middles - boxes.mean(1, keepdim=True)) * normals).sum(2, keepdim=True).sign()
    return _Sides(corners, normals, (normals * middles).sum(2))


def _roughness(sides: _Sides) -> Tensor:
    """Return how far [P] a corner of each box is from the plane of its side: boxes are rounded."""
    return sides.heights(sides.corners).diagonal(dim1=1, dim2=3).abs().amax((1, 2))


def _are_shared(sides: _Sides, others: _Sides, flatness: Tensor) -> Tensor:
    """Return which sides [P, 6] are in the same plane as a side of others, with the same side inside."""
    aligned = sides.normals @ others.normals.mT > 0
    limit = flatness[:, None, None]
    near = sides.heights(others.corners).abs().amax(2) < limit
    near_others = others.heights(sides.corners).abs().amax(2) < limit
    return (aligned & (near_others | near.mT)).any(2)


def _clipped_areas(sides: _Sides, planes: _Sides, flatness: Tensor) -> Tensor:
    """Return the area [P, 6] of what is left of the sides inside of all planes."""
    polygons, flatness = sides.corners.flatten(0, 1), flatness.repeat_interleave(6)[:, None]
    counts = torch.full((len(polygons),), polygons.shape[1], device=polygons.device)
    for k in range(6):
        normals, offsets = (
            values[:, k].repeat_interleave(6, 0) for values in (planes.normals, planes.offsets)
        )
        heights = (polygons * normals[:, None]).sum(2) - offsets[:, None]
        polygons, counts = _clip(polygons, counts, torch.where(heights.abs() < flatness, 0, heights))
    edges = polygons - polygons[:, :1]
    crosses = torch.linalg.cross(edges[:, 1:-1], edges[:, 2:])
    used = torch.arange(2, polygons.shape[1], device=polygons.device) < counts[:, None]
    doubled: Tensor = torch.where(used[..., None], crosses, 0).sum(1).norm(dim=1)
    return doubled.view(-1, 6) / 2


def _clip(polygons: Tensor, counts: Tensor, heights: Tensor) -> tuple[Tensor, Tensor]:
    """Cut off what lies beyond a plane of each polygon (Sutherland and Hodgman 1974); `heights` [Q, V] is how far.

    Polygons [Q, V, 3] have `counts` [Q] corners, and anything in the rest of their rows.
    """
    slots = torch.arange(polygons.shape[1], device=polygons.device)
    used = slots < counts[:, None]
    following = torch.where(slots + 1 < counts[:, None], slots + 1, 0)
    next_heights = heights.gather(1, following)
    fractions = heights / torch.where(heights == next_heights, 1, heights - next_heights)
    next_corners = polygons.gather(1, following[..., None].expand(-1, -1, 3))
    cuts = polygons + (next_corners - polygons) * fractions[..., None]
    kept = torch.stack([used & (heights <= 0), used & (heights * next_heights < 0)], 2).flatten(1)
    corners = torch.stack([polygons, cuts], 2).flatten(1, 2)
    counts = kept.sum(1)
    order = kept.logical_not().to(torch.uint8).argsort(dim=1, stable=True)[:, : max(3, int(counts.max()))]
    return corners.gather(1, order[..., None].expand(-1, -1, 3)), counts
