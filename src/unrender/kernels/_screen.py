"""Faces in screen space: clipped at the near plane, projected, and binned into tiles of the image.

Points are homogeneous pixel coordinates (x·w, y·w, w, depth). A face clipped at the near plane is a polygon of 3 or 4
corners. Bins are built in two passes, count and fill, so that they never overflow; within a bin, face indices ascend.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

TILE = 8
CHUNKS = 16
"""Chunks of faces binned in parallel: their number does not depend on the number of threads."""


class Screen(NamedTuple):
    """Projected faces."""

    triangles: Array
    """Homogeneous vertices [faces, 3, 4]."""
    corners: Array
    """Clipped polygons, in pixels [faces, 4, 2]."""
    counts: Array
    """Number of corners of each polygon: 0, 3 or 4."""
    areas: Array
    """Signed area of each polygon in pixels²; positive for back faces."""


class Bins(NamedTuple):
    """The faces that may overlap each tile."""

    bounds: Array
    """First and last column, first and last row of the pixels that a face may overlap."""
    starts: Array
    """Offset of each tile's bin, followed by their total size."""
    faces: Array
    """Face indices of all bins, concatenated."""


def project(
    points: Array, faces: Array, height: int, width: int, near: float, reach: float, cull: bool
) -> tuple[Screen, Bins]:
    """Clip and project faces, and bin each into every tile within `reach` pixels; `cull` drops back faces."""
    count, scalar = len(faces), points.dtype.type
    polygons = (
        np.empty((count, 4, 2), points.dtype),
        np.empty(count, np.int8),
        np.empty(count, points.dtype),
    )
    screen = Screen(np.empty((count, 3, 4), points.dtype), *polygons)
    bounds, columns = np.empty((count, 4), np.int32), tile_count(width)
    entries = np.zeros((CHUNKS, tile_count(height) * columns), np.int64)
    _count(points, faces, height, width, scalar(near), scalar(reach), cull, screen, bounds, entries)
    starts = np.empty(entries.shape[1] + 1, np.int64)
    bins = np.empty(_offset(entries, starts), np.int32)
    _fill(*polygons, bounds, scalar(reach), columns, entries, bins)
    return screen, Bins(bounds, starts, bins)


def tile_count(pixels: int) -> int:
    """Return the number of tiles that cover a row of pixels."""
    return (pixels + TILE - 1) // TILE


@numba.njit(cache=True, error_model="numpy")
def clip(triangle, near, corners):
    """Clip a triangle at the near plane; write the polygon to `corners`, in pixels, and return its corner count.

    Intersections are computed from the vertex in front, so that faces which share an edge share them to the bit.
    """
    count = 0
    for i in range(3):
        j = (i + 1) % 3
        i_front, j_front = triangle[i, 3] >= near, triangle[j, 3] >= near
        if i_front:
            corners[count, 0] = triangle[i, 0] / triangle[i, 2]
            corners[count, 1] = triangle[i, 1] / triangle[i, 2]
            count += 1
        if i_front != j_front:
            a, b = (i, j) if i_front else (j, i)
            t = (near - triangle[a, 3]) / (triangle[b, 3] - triangle[a, 3])
            w = triangle[a, 2] + t * (triangle[b, 2] - triangle[a, 2])
            corners[count, 0] = (triangle[a, 0] + t * (triangle[b, 0] - triangle[a, 0])) / w
            corners[count, 1] = (triangle[a, 1] + t * (triangle[b, 1] - triangle[a, 1])) / w
            count += 1
    return count


@numba.njit(cache=True, error_model="numpy")
def clip_backward(triangle, near, gradient_corners, gradient):
    """Backpropagate through `clip`; add to a triangle's `gradient` [3, 4]."""
    count = 0
    for i in range(3):
        j = (i + 1) % 3
        i_front, j_front = triangle[i, 3] >= near, triangle[j, 3] >= near
        if i_front:
            gu, gv, w = gradient_corners[count, 0], gradient_corners[count, 1], triangle[i, 2]
            gradient[i, 0] += gu / w
            gradient[i, 1] += gv / w
            gradient[i, 2] -= (gu * triangle[i, 0] + gv * triangle[i, 1]) / (w * w)
            count += 1
        if i_front != j_front:
            a, b = (i, j) if i_front else (j, i)
            span = triangle[b, 3] - triangle[a, 3]
            t = (near - triangle[a, 3]) / span
            x = triangle[a, 0] + t * (triangle[b, 0] - triangle[a, 0])
            y = triangle[a, 1] + t * (triangle[b, 1] - triangle[a, 1])
            w = triangle[a, 2] + t * (triangle[b, 2] - triangle[a, 2])
            gx, gy = gradient_corners[count, 0] / w, gradient_corners[count, 1] / w
            gw = -(gx * x + gy * y) / w
            gt = gx * (triangle[b, 0] - triangle[a, 0]) + gy * (triangle[b, 1] - triangle[a, 1])
            gt += gw * (triangle[b, 2] - triangle[a, 2])
            gradient[a, 0] += (1 - t) * gx
            gradient[a, 1] += (1 - t) * gy
            gradient[a, 2] += (1 - t) * gw
            gradient[a, 3] -= gt * (1 - t) / span
            gradient[b, 0] += t * gx
            gradient[b, 1] += t * gy
            gradient[b, 2] += t * gw
            gradient[b, 3] -= gt * t / span
            count += 1


@numba.njit(cache=True, error_model="numpy")
def _area(corners, count):
    area = corners.dtype.type(0)
    for k in range(1, count - 1):
        ax, ay = corners[k, 0] - corners[0, 0], corners[k, 1] - corners[0, 1]
        bx, by = corners[k + 1, 0] - corners[0, 0], corners[k + 1, 1] - corners[0, 1]
        area += ax * by - bx * ay
    return area / 2


@numba.njit(cache=True, error_model="numpy")
def project_face(points, face, near, triangle, corners):
    """Fill a face's homogeneous vertices and its clipped polygon; return its corner count and area."""
    for i in range(3):
        for axis in range(4):
            triangle[i, axis] = points[face[i], axis]
    count = clip(triangle, near, corners)
    return count, _area(corners, count)


@numba.njit(cache=True, error_model="numpy")
def _bound(corners, count, height, width, reach, bounds):
    """Fill the first and last column, first and last row of pixels within reach; the last row is -1 if none is."""
    low_x = low_y = corners.dtype.type(np.inf)
    high_x = high_y = corners.dtype.type(-np.inf)
    for k in range(count):
        x, y = corners[k, 0], corners[k, 1]
        low_x, high_x = min(low_x, x), max(high_x, x)
        low_y, high_y = min(low_y, y), max(high_y, y)
    bounds[0] = np.ceil(min(max(low_x - reach - 0.5, 0), width))
    bounds[1] = np.floor(max(min(high_x + reach - 0.5, width - 1), -1))
    bounds[2] = np.ceil(min(max(low_y - reach - 0.5, 0), height))
    bounds[3] = np.floor(max(min(high_y + reach - 0.5, height - 1), -1))
    if bounds[1] < bounds[0] or bounds[3] < bounds[2]:
        bounds[3] = -1


@numba.njit(cache=True, error_model="numpy")
def _touches(corners, count, area, reach, row, column):
    """Return whether a polygon may be within `reach` of a tile: no edge has the whole tile on its outside."""
    half = corners.dtype.type((TILE - 1) / 2)
    x, y = column * TILE + half + corners.dtype.type(0.5), row * TILE + half + corners.dtype.type(0.5)
    if area == 0:
        return True
    for k in range(count):
        j = k + 1 if k + 1 < count else 0
        ax, ay = corners[k, 0], corners[k, 1]
        ex, ey = corners[j, 0] - ax, corners[j, 1] - ay
        inside = ex * (y - ay) - ey * (x - ax)
        inside = inside if area > 0 else -inside
        rounding = corners.dtype.type(1e-2) + corners.dtype.type(1e-5) * (
            abs(ax) + abs(ay) + abs(ex) + abs(ey)
        )
        if inside + half * (abs(ex) + abs(ey)) < -(reach + rounding) * np.sqrt(ex * ex + ey * ey):
            return False
    return True


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _count(points, faces, height, width, near, reach, cull, screen, bounds, entries):
    triangles, corners, counts, areas = screen
    columns = (width + TILE - 1) // TILE
    for chunk in numba.prange(CHUNKS):
        for face in range(chunk * len(faces) // CHUNKS, (chunk + 1) * len(faces) // CHUNKS):
            count, area = project_face(points, faces[face], near, triangles[face], corners[face])
            count = 0 if cull and area >= 0 else count
            counts[face], areas[face] = count, area
            _bound(corners[face], count, height, width, reach, bounds[face])
            if bounds[face, 3] < 0:
                continue
            for row in range(bounds[face, 2] // TILE, bounds[face, 3] // TILE + 1):
                for column in range(bounds[face, 0] // TILE, bounds[face, 1] // TILE + 1):
                    if _touches(corners[face], count, area, reach, row, column):
                        entries[chunk, row * columns + column] += 1


@numba.njit(cache=True)
def _offset(entries, starts):
    """Convert counts to the offsets at which each chunk starts to fill each bin; return their sum."""
    total = 0
    for tile in range(entries.shape[1]):
        starts[tile] = total
        for chunk in range(CHUNKS):
            count = entries[chunk, tile]
            entries[chunk, tile] = total
            total += count
    starts[-1] = total
    return total


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _fill(corners, counts, areas, bounds, reach, columns, entries, bins):
    for chunk in numba.prange(CHUNKS):
        for face in range(chunk * len(counts) // CHUNKS, (chunk + 1) * len(counts) // CHUNKS):
            if bounds[face, 3] < 0:
                continue
            for row in range(bounds[face, 2] // TILE, bounds[face, 3] // TILE + 1):
                for column in range(bounds[face, 0] // TILE, bounds[face, 1] // TILE + 1):
                    if _touches(corners[face], counts[face], areas[face], reach, row, column):
                        bins[entries[chunk, row * columns + column]] = face
                        entries[chunk, row * columns + column] += 1


@numba.njit(cache=True)
def scatter_to_vertices(by_face, faces, gradient):
    """Accumulate the gradients of the faces, face by face: the order, and so every bit, is fixed."""
    for face in range(len(faces)):
        for i in range(3):
            for axis in range(by_face.shape[2]):
                gradient[faces[face, i], axis] += by_face[face, i, axis]
