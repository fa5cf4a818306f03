"""Triangulation of polygons."""

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.geometry_data import Floats, Indices

MAX_FOLDED_CORNERS = 5_000
"""Ear clipping takes quadratic time."""


def triangulate(corners: Indices, sizes: Indices, points: Floats) -> Indices:
    """Triangulate polygons with `sizes` corners each; triangles keep the winding.

    A polygon becomes a fan around its first corner; if that would fold over, ear clipping is used instead.
    """
    if len(sizes) and sizes.min() < 3:
        raise FileFormatError(
            f"face {int(sizes.argmin()) + 1} should have at least 3 corners, got {sizes.min()}"
        )
    first_corner, first_triangle = np.cumsum(sizes) - sizes, np.cumsum(sizes - 2) - (sizes - 2)
    polygon = np.repeat(np.arange(len(sizes)), sizes - 2)
    step = np.arange(len(polygon)) - first_triangle[polygon]
    fan = np.stack([0 * step, step + 1, step + 2], axis=1)
    triangles: Indices = corners[first_corner[polygon][:, None] + fan]
    if len(sizes) and sizes.max() > 3:
        folded = _folded(triangles, polygon, points)
        quads, larger = folded[sizes[folded] == 4], folded[sizes[folded] > 4]
        for half, other_diagonal in enumerate(([1, 2, 3], [1, 3, 0])):
            triangles[first_triangle[quads] + half] = corners[first_corner[quads][:, None] + other_diagonal]
        for i in larger:
            face = corners[first_corner[i] :][: sizes[i]]
            triangles[first_triangle[i] :][: sizes[i] - 2] = face[_clip_ears(points[face], i)]
    return triangles


def _folded(triangles: Indices, polygon: Indices, points: Floats) -> Indices:
    """Return the polygons with a triangle of opposite orientation."""
    a, b, c = (points[triangles[:, k]].astype(np.float64) for k in range(3))
    normals = np.cross(b - a, c - a)
    whole = np.stack([np.bincount(polygon, normals[:, k]) for k in range(3)], axis=1)
    flipped = (normals * whole[polygon]).sum(axis=1) < 0
    return np.unique(polygon[flipped])


def _clip_ears(points: Floats, polygon: int) -> Indices:
    """Triangulate a polygon by ear clipping: remove corners whose triangle contains no other corner (Meisters 1975)."""
    if len(points) > MAX_FOLDED_CORNERS:
        raise FileFormatError(
            f"face {polygon + 1} is not convex and has {len(points)} corners, more than {MAX_FOLDED_CORNERS}; "
            "triangulate it first"
        )
    flat = _in_plane(points.astype(np.float64))
    ring, triangles = np.arange(len(points)), []
    while len(ring) > 3:
        ear = _find_ear(flat[ring])
        triangles.append(ring[[ear - 1, ear, (ear + 1) % len(ring)]])
        ring = np.delete(ring, ear)
    return np.array([*triangles, ring])


def _in_plane(points: Floats) -> Floats:
    """Project a polygon onto its own plane, oriented counter-clockwise."""
    edges = points - points[0]
    normal = np.cross(edges[:-1], edges[1:]).sum(axis=0)
    first = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    flat: Floats = edges @ np.stack([first, np.cross(normal, first)], axis=1)
    return flat


def _find_ear(ring: Floats) -> int:
    """Find an ear of a planar polygon; the flattest corner if it has none because it intersects itself."""
    before, after = np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0)
    areas = _signed_area(before, ring, after)
    for i in np.flatnonzero(areas > 0):
        a, b, c = before[i], ring[i], after[i]
        others = ring[(ring != a).any(axis=1) & (ring != b).any(axis=1) & (ring != c).any(axis=1)]
        inside = [_signed_area(start, end, others) >= 0 for start, end in ((a, b), (b, c), (c, a))]
        if not np.logical_and.reduce(inside).any():
            return int(i)
    return int(np.abs(areas).argmin())


def _signed_area(a: Floats, b: Floats, c: Floats) -> Floats:
    """Compute twice the signed area of the triangle a b c, positive if counter-clockwise."""
    u, v = b - a, c - a
    area: Floats = u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
    return area
