"""Merging of duplicate vertices, which some formats store per face or along texture seams."""

import numpy as np

from unrender.io.geometry_data import GeometryData


def weld(geometry: GeometryData) -> GeometryData:
    """Merge vertices with equal position and color; the first of each is kept, and so is the order."""
    columns = [geometry.points + 0.0]  # converts -0.0 to 0.0
    if geometry.colors is not None:
        columns.append(geometry.colors)
    table = np.ascontiguousarray(np.hstack(columns))
    rows = table.view(np.dtype((np.void, table.itemsize * table.shape[1]))).reshape(-1)
    _, first, same = np.unique(rows, return_index=True, return_inverse=True)
    order = np.argsort(first)
    new_index = np.empty_like(order)
    new_index[order] = np.arange(len(order))
    kept = first[order]
    return GeometryData(
        geometry.points[kept],
        None if geometry.faces is None else new_index[same][geometry.faces],
        None if geometry.normals is None else geometry.normals[kept],
        None if geometry.colors is None else geometry.colors[kept],
    )
