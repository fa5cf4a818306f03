"""Level sets of functions that are expensive to evaluate: a grid, refined near points and near the level set."""

import itertools
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

Array = npt.NDArray[np.floating]
COARSE_CELLS = 32
"""Maximum number of cells along the longest side of the coarsest grid, which is evaluated as a whole."""
MAX_CELLS = 40_000_000
"""Maximum number of cells of the finest grid; cells are larger if it would have more."""

MAX_COARSENING = 20
"""Cells are at most this much larger than requested."""
CLUSTERS = (
    "fit_mesh: the solid is smaller than a grid cell: the points may form clusters that are far apart; "
    "reconstruct each cluster on its own"
)


@checked
def extract_level_set(
    function: Callable[[Array], Array], points: Float[Tensor, "points 3"], cell: float, *, margin: float
) -> Mesh:
    """Extract the zero level set of a function that is positive inside, around points and up to `margin` from them.

    From level to level, cells are half as large. The function is evaluated within two cells of a point and one of the
    level set, and interpolated elsewhere.
    """
    from skimage.measure import marching_cubes

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
        ids = _dilated(np.rint((p - origin) / step).astype(int), values.shape, 2)
        ids = np.union1d(ids, _dilated(_crossings(values), values.shape, 1))
        values.ravel()[ids] = function(origin + step * np.stack(np.unravel_index(ids, values.shape), 1))
    if not values.max() > 0:
        raise InputError(CLUSTERS)
    padded = np.pad(values, 1, constant_values=-float(np.abs(values).max()))
    vertices, faces, _, _ = marching_cubes(padded, 0.0, gradient_direction="ascent")
    return Mesh(
        torch.from_numpy(origin + (vertices.astype(np.float64) - 1) * step).to(points),
        torch.from_numpy(faces.astype(np.int64)).to(points.device),
    )


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


def _dilated(nodes: npt.NDArray[np.int64], shape: tuple[int, ...], radius: int) -> npt.NDArray[np.int64]:
    """Return the flat indices of all nodes within a cube of `radius` cells around nodes, sorted."""
    marked = np.zeros(shape, bool)
    for offset in itertools.product(range(-radius, radius + 1), repeat=3):
        marked[tuple((nodes + offset).clip(0, np.array(shape) - 1).T)] = True
    return np.flatnonzero(marked)
