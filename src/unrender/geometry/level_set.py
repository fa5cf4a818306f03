"""Level sets of functions that are expensive to evaluate: a grid, refined near points and near the level set."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.kernels.simplify_topology import simplify_topology

Array = npt.NDArray[np.floating]
COARSE_CELLS = 32
"""Maximum number of cells along the longest side of the coarsest grid, which is evaluated as a whole."""
MAX_CELLS = 40_000_000
"""Maximum number of cells of the finest grid; cells are larger if it would have more."""

CONTRAST_RADIUS = 2
"""Number of cells around a node within which the largest and the smallest value are its contrast."""
INSIDE_SIGN = 4.0
"""Value of nodes inside, with −1 outside, for which marching cubes connects all 26 neighbors inside."""
MAX_COARSENING = 20
"""Cells are at most this much larger than requested."""
CLUSTERS = (
    "fit_mesh: the solid is smaller than a grid cell: the points may form clusters that are far apart; "
    "reconstruct each cluster on its own"
)


@checked
def extract_level_set(
    function: Callable[[Array], Array],
    points: Float[Tensor, "points 3"],
    cell: float,
    *,
    margin: float,
    tunnel_tolerance: float = 0.0,
    handle_tolerance: float = 0.0,
) -> Mesh:
    """Extract the zero level set of a function that is positive inside, around points and up to `margin` from them.

    From level to level, cells are half as large. The function is evaluated within two cells of a point and one of the
    level set, and interpolated elsewhere. Tunnels and handles are removed if values
    within these tolerances of 0, relative to the contrast around them, would have to change.
    """
    p = points.detach().double().cpu().numpy()
    low, high = p.min(0), p.max(0)
    smallest = float((high - low + 2 * margin).prod() / MAX_CELLS) ** (1 / 3)
    if smallest > MAX_COARSENING * cell:
        raise InputError(CLUSTERS)
    cell = max(cell, smallest)
    num_levels = max(0, math.ceil(math.log2((high - low + 2 * margin).max() / (COARSE_CELLS * cell))))
    step = cell * 2**num_levels
    shape = np.ceil((high - low + 2 * margin) / step).astype(int) + 2
    origin = (low + high) / 2 - (shape - 1) * step / 2
    everywhere = np.indices(shape).reshape(3, -1).T
    values = function(origin + step * everywhere).reshape(shape)
    for _ in range(num_levels):
        step, values = step / 2, _upsample(values)
        is_near = _dilated(np.rint((p - origin) / step).astype(int), values.shape, 2)
        is_near |= _dilated(_crossings(values), values.shape, 1)
        ids = np.flatnonzero(is_near)
        values.ravel()[ids] = function(origin + step * np.stack(np.unravel_index(ids, values.shape), 1))
    if not values.max() > 0:
        raise InputError(CLUSTERS)
    relative = torch.from_numpy(_relative_to_contrast(values))
    inside = simplify_topology(relative, tunnel_tolerance, handle_tolerance).numpy()
    vertices, faces = _marching_cubes(values, inside)
    return Mesh(
        torch.from_numpy(origin + vertices * step).to(points),
        torch.from_numpy(faces.astype(np.int64)).to(points.device),
    )


def _relative_to_contrast(values: Array) -> Array:
    """Divide by the largest value nearby where positive, and by minus the smallest one where negative."""
    from scipy.ndimage import maximum_filter, minimum_filter

    size = 2 * CONTRAST_RADIUS + 1
    contrast = np.where(values > 0, maximum_filter(values, size), -minimum_filter(values, size))
    return values / np.maximum(contrast, np.finfo(values.dtype).tiny)


def _marching_cubes(values: Array, inside: npt.NDArray[np.bool_]) -> tuple[Array, npt.NDArray[np.int32]]:
    """Extract the surface around the nodes inside, where the absolute values interpolate to 0.

    Marching cubes sees the signs only, since the topology of ambiguous cells would depend on the values.
    """
    from skimage.measure import marching_cubes

    inside, values = np.pad(inside, 1), np.pad(np.abs(values), 1, constant_values=np.abs(values).max())
    signs = np.where(inside, INSIDE_SIGN, -1.0).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(signs, 0.0, gradient_direction="ascent")
    nearest = np.rint(vertices)  # one end of each crossed edge: the one outside
    direction = np.sign(vertices - nearest) * (np.abs(vertices - nearest) > 0.1)
    outside, other = (values[tuple(nodes.astype(int).T)] for nodes in (nearest, nearest + direction))
    fraction = outside / np.maximum(outside + other, np.finfo(values.dtype).tiny)
    return nearest + direction * fraction[:, None] - 1, faces


def _upsample(values: Array) -> Array:
    """Interpolate linearly at twice the resolution: n values become 2 n − 1 along each axis."""
    for axis in range(3):
        rows = np.moveaxis(values, axis, 0)
        fine = np.empty((2 * len(rows) - 1, *rows.shape[1:]), values.dtype)
        fine[::2], fine[1::2] = rows, (rows[1:] + rows[:-1]) / 2
        values = np.moveaxis(fine, 0, axis)
    return np.ascontiguousarray(values)


def _crossings(values: Array) -> npt.NDArray[np.int64]:
    """Return the grid nodes [nodes 3] with a neighbor along an axis that has the other sign."""
    is_inside = values > 0
    crosses = np.zeros(values.shape, bool)
    for axis in range(3):
        rows, marked = np.moveaxis(is_inside, axis, 0), np.moveaxis(crosses, axis, 0)
        differ = rows[1:] != rows[:-1]
        marked[1:] |= differ
        marked[:-1] |= differ
    return np.argwhere(crosses)


def _dilated(nodes: npt.NDArray[np.int64], shape: tuple[int, ...], radius: int) -> npt.NDArray[np.bool_]:
    """Mark all nodes of a grid within a cube of `radius` cells around nodes."""
    marked = np.zeros(shape, bool)
    marked[tuple(nodes.clip(0, np.array(shape) - 1).T)] = True
    for axis in range(3):
        rows, before = np.moveaxis(marked, axis, 0), np.moveaxis(marked.copy(), axis, 0)
        for offset in range(1, radius + 1):
            rows[offset:] |= before[:-offset]
            rows[:-offset] |= before[offset:]
    return marked
