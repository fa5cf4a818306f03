"""Vertices that formats store once per face or texture seam, made one again."""

import numpy as np

from unrender.io.contents import Contents


def weld(contents: Contents) -> Contents:
    """Join vertices of the same position and color; the first of each stays, and so does the order."""
    columns = [contents.points + 0.0]  # turns -0.0 into 0.0
    if contents.colors is not None:
        columns.append(contents.colors)
    table = np.ascontiguousarray(np.hstack(columns))
    rows = table.view(np.dtype((np.void, table.itemsize * table.shape[1]))).reshape(-1)
    _, first, same = np.unique(rows, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    kept = first[order]
    return Contents(
        contents.points[kept],
        None if contents.faces is None else place[same][contents.faces],
        None if contents.normals is None else contents.normals[kept],
        None if contents.colors is None else contents.colors[kept],
    )
