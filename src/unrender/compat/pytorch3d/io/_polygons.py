"""Triangulation of polygons in PyTorch3D's order."""

import warnings
from typing import Any

import numpy as np

from unrender.io.geometry_data import Indices


def warn_of_invalid(faces: Any, count: int, what: str) -> None:
    """Warn about indices that are not those of `count` vertices, normals or texture coordinates."""
    if len(faces) and not (faces.min() >= 0 and faces.max() < count):
        found = f"{int(faces.min())} to {int(faces.max())}, but there are {count} {what}"
        warnings.warn(f"Faces have invalid indices: {found}", stacklevel=4)


def fans(corners: Indices, sizes: Indices) -> Indices:
    """Split polygons into fans around their first corners, without a look at their shapes.

    Polygons of one common size give the first triangle of each, then the second of each; polygons of mixed sizes
    give all triangles of the first, then of the second.
    """
    if not len(sizes):
        return np.empty((0, 3), np.int64)
    if (sizes == sizes[0]).all():
        rows = corners.reshape(-1, int(sizes[0]))
        return np.concatenate([rows[:, [0, i + 1, i + 2]] for i in range(rows.shape[1] - 2)])
    return corners[fan_corners(sizes)]


def fan_corners(sizes: Indices) -> Indices:
    """Return the corners of each triangle of polygons, polygon by polygon, as indices into all corners."""
    first_corner, first_triangle = np.cumsum(sizes) - sizes, np.cumsum(sizes - 2) - (sizes - 2)
    polygon = np.repeat(np.arange(len(sizes)), sizes - 2)
    step = np.arange(len(polygon)) - first_triangle[polygon]
    triangles: Indices = first_corner[polygon][:, None] + np.stack([0 * step, step + 1, step + 2], axis=1)
    return triangles
