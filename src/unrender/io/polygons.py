"""Polygons of any number of corners, cut into triangles."""

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.contents import Indices


def triangulate(corners: Indices, sizes: Indices) -> Indices:
    """Cut polygons of so many corners each (`sizes`) into fans around their first corners."""
    if len(sizes) and sizes.min() < 3:
        raise FileFormatError(f"face {int(sizes.argmin()) + 1} has {sizes.min()} corners; a face needs 3")
    starts = np.cumsum(sizes) - sizes
    triangles = sizes - 2
    first = np.repeat(starts, triangles)
    step = np.arange(triangles.sum()) - np.repeat(np.cumsum(triangles) - triangles, triangles)
    fan = np.stack([first, first + step + 1, first + step + 2], axis=1)
    return np.asarray(corners[fan], np.int64)
