"""Volume of the intersection of two convex boxes, by clipping."""

import torch
from torch import Tensor

_QUADS = torch.tensor(((0, 1, 2, 3), (3, 2, 6, 7), (0, 1, 5, 4), (0, 3, 7, 4), (1, 2, 6, 5), (4, 5, 6, 7)))


def intersection_volume(first: Tensor, second: Tensor) -> float:
    """Return the volume of the points in both boxes [8, 3].

    The surface of the intersection is each side of one box clipped by the planes of the other; its volume is the sum of
    the pyramids from these polygons to a point inside. Sides that both boxes share are counted once.
    """
    center = first.mean(0)
    planes = [_planes(first), _planes(second)]
    total = 0.0
    for turn, box in enumerate((first, second)):
        own, (normals, offsets) = planes[turn], planes[1 - turn]
        for k, corners in enumerate(box[_QUADS]):
            if turn and _is_shared(own[0][k], own[1][k], *planes[0]):
                continue
            polygon = corners
            for normal, offset in zip(normals, offsets, strict=True):
                polygon = _clip(polygon, normal, offset)
                if len(polygon) < 3:
                    break
            if len(polygon) >= 3:
                total += _area(polygon) * float(own[1][k] - own[0][k] @ center) / 3
    return max(total, 0.0)


def _planes(box: Tensor) -> tuple[Tensor, Tensor]:
    """Return outward unit normals n [6, 3] and offsets d [6] of the sides: n · x ≤ d inside."""
    sides = box[_QUADS]
    normals = torch.linalg.cross(sides[:, 1] - sides[:, 0], sides[:, 2] - sides[:, 0])
    normals = torch.nn.functional.normalize(normals, dim=1)
    outward = ((sides.mean(1) - box.mean(0)) * normals).sum(1, keepdim=True).sign()
    normals = normals * outward
    return normals, (normals * sides.mean(1)).sum(1)


def _is_shared(normal: Tensor, offset: Tensor, normals: Tensor, offsets: Tensor) -> bool:
    """Return whether a plane with this side inside is one of others."""
    same = (normals @ normal > 1 - 1e-9) & ((offsets - offset).abs() < 1e-9 * (1 + offset.abs()))
    return bool(same.any())


def _clip(polygon: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
    """Cut off what lies beyond a plane (Sutherland and Hodgman 1974)."""
    height = polygon @ normal - offset
    height = torch.where(height.abs() < 1e-12, 0.0, height)
    following, next_height = polygon.roll(-1, 0), height.roll(-1, 0)
    kept = []
    for a, b, start, end in zip(height, next_height, polygon, following, strict=True):
        if a <= 0:
            kept.append(start)
        if (a < 0 < b) or (b < 0 < a):
            kept.append(start + (end - start) * (a / (a - b)))
    return torch.stack(kept) if kept else polygon[:0]


def _area(polygon: Tensor) -> float:
    edges = polygon - polygon[0]
    return float(torch.linalg.cross(edges[1:-1], edges[2:]).sum(0).norm() / 2)
