"""The object of demos and examples: an elephant that is a watering can.

Its surface is the zero level set of a smooth union of signed distance functions (Quílez, "Distance functions" and
"Smooth minimum"). A vertex takes the color of the nearest solid, then of the paint regions it lies in.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh

Array = NDArray[np.float32]
Point = tuple[float, float, float]
Distance = Callable[[Array], Array]
"""Maps points in columns to their approximate signed distance, negative inside."""

SKIN, BELLY, PINK, CREAM = (0.44, 0.58, 0.70), (0.66, 0.75, 0.80), (0.95, 0.62, 0.66), (0.98, 0.94, 0.82)
RED, GOLD, COPPER, DARK = (0.80, 0.17, 0.20), (0.98, 0.77, 0.22), (0.80, 0.48, 0.26), (0.10, 0.09, 0.12)
WHITE = (1.0, 1.0, 1.0)
LEGS = [(0.10, 0.20), (0.14, -0.19), (-0.44, 0.21), (-0.48, -0.18)]


class Solid(NamedTuple):
    """A signed distance function with a color; `blend` is the width of the smooth union with the solids before it."""

    distance: Distance
    color: Point
    blend: float = 0.02


def demo_object(resolution: int = 96) -> Mesh:
    """Build a colored test mesh: an elephant with a handle, watertight, of genus 1, without symmetry, in the unit ball.

    It faces +x, with +y up. `resolution` is the number of grid cells along x (at least 48) from which the surface is
    extracted.
    """
    from skimage.measure import marching_cubes

    if resolution < 48:
        raise InputError(
            f"demo_object: `resolution` should be at least 48 to resolve thin parts, got {resolution}"
        )

    solids, low, high = _solids(), (-0.9, -0.75, -0.65), (1.1, 0.9, 0.65)
    step = (high[0] - low[0]) / resolution
    axes = [np.arange(a, b + step, step, dtype=np.float32) for a, b in zip(low, high, strict=True)]
    distance = _distances(solids, np.stack(np.meshgrid(*axes, indexing="ij")), step)
    points, faces, _, _ = marching_cubes(distance, 0, spacing=(step,) * 3, gradient_direction="descent")
    colors = _colors(solids, points.astype(np.float32).T + _column(low))
    points = points - (points.max(0) + points.min(0)) / 2
    points /= np.linalg.norm(points, axis=1).max()
    return Mesh(
        torch.tensor(points).float(), torch.from_numpy(faces.astype(np.int64)), torch.from_numpy(colors)
    )


def _solids() -> list[Solid]:
    body, head = (-0.20, 0.02, 0.0), (0.36, 0.25, 0.0)
    return [
        Solid(_ellipsoid(body, (0.48, 0.37, 0.36)), SKIN),
        Solid(_ellipsoid(head, (0.29, 0.30, 0.28)), SKIN, 0.12),
        *[Solid(_tube([(x, -0.2, z), (x, -0.5, z)], [0.15, 0.14]), SKIN, 0.08) for x, z in LEGS],
        # the trunk is the spout, with a copper sprinkler head
        Solid(
            _tube(_arc((0.58, 0.18, 0), (0.76, -0.36, 0.03), (0.88, 0.24, 0.05)), [0.13, 0.06]), SKIN, 0.08
        ),
        Solid(_tube([(0.86, 0.20, 0.05), (0.90, 0.30, 0.055)], [0.055, 0.075]), COPPER),
        Solid(_ellipsoid((0.91, 0.33, 0.056), (0.125, 0.035, 0.125), (0, 0, -0.35)), COPPER),
        # one ear spread, one hanging
        Solid(_ellipsoid((0.24, 0.30, 0.40), (0.20, 0.27, 0.06), (0, 0.6, 0.3)), SKIN, 0.04),
        Solid(_ellipsoid((0.24, 0.14, -0.36), (0.18, 0.27, 0.06), (0.5, -0.5, -0.1)), SKIN, 0.04),
        # a long tusk and a short one
        Solid(_tube(_arc((0.54, 0.09, 0.15), (0.66, -0.08, 0.20), (0.79, 0.02, 0.22)), [0.05, 0.018]), CREAM),
        Solid(_tube(_arc((0.54, 0.09, -0.15), (0.62, -0.02, -0.19), (0.68, 0, -0.20)), [0.05, 0.026]), CREAM),
        Solid(_ball((0.54, 0.36, 0.15), 0.075), WHITE, 0.005),
        Solid(_ball((0.54, 0.36, -0.15), 0.075), WHITE, 0.005),
        Solid(
            _tube(_arc((-0.62, 0.14, 0), (-0.84, 0.08, 0.08), (-0.74, -0.18, 0.16)), [0.04, 0.024]),
            SKIN,
            0.03,
        ),
        Solid(_ellipsoid((-0.73, -0.21, 0.165), (0.05, 0.08, 0.05)), DARK, 0.01),
        # a blanket with a hem, and the handle on it
        Solid(_blanket(body, (0.495, 0.385, 0.375), 0.25, -0.04), GOLD, 0.005),
        Solid(_blanket(body, (0.508, 0.398, 0.388), 0.20, 0.02), RED, 0.005),
        Solid(_ring((-0.20, 0.46, 0.0), 0.25, 0.042), COPPER, 0.03),
        # a flower behind the spread ear
        Solid(_ball((0.365, 0.51, 0.125), 0.08), PINK, 0.005),
        *[Solid(_ball(petal, 0.048), PINK, 0.005) for petal in _petals()],
        Solid(_ball((0.375, 0.565, 0.135), 0.05), GOLD, 0.005),
    ]


def _paint() -> list[Solid]:
    toes = [(x + 0.14 * np.cos(t), -0.55, z + 0.14 * np.sin(t)) for x, z in LEGS for t in (-0.8, 0.0, 0.8)]
    spots = [
        (x, side * t) for side in (-1, 1) for x, t in [(-0.2, 0.5), (-0.3, 0.85), (-0.1, 0.85), (-0.2, 1.2)]
    ]
    return [
        Solid(_ellipsoid((-0.18, -0.36, 0), (0.42, 0.2, 0.24)), BELLY, 0.08),
        Solid(_ellipsoid((0.29, 0.30, 0.41), (0.14, 0.20, 0.06), (0, 0.6, 0.3)), PINK, 0.03),
        Solid(_ellipsoid((0.29, 0.14, -0.37), (0.12, 0.20, 0.06), (0.5, -0.5, -0.1)), PINK, 0.03),
        *[Solid(_ball(toe, 0.055), CREAM) for toe in toes],
        *[Solid(_ball((x, 0.35 * np.cos(t), 0.37 * np.sin(t)), 0.05), GOLD, 0.01) for x, t in spots],
        *[Solid(_ball((0.61, 0.365, z), 0.055), DARK, 0.01) for z in (0.175, -0.175)],
        *[Solid(_ball((0.61, 0.40, z), 0.022), WHITE, 0.01) for z in (0.185, -0.155)],
    ]


def _petals() -> list[Point]:
    turns = [(np.cos(t), np.sin(t)) for t in np.arange(5) * (2 * np.pi / 5)]
    return [(0.365 + 0.08 * u, 0.535 - 0.01 * u - 0.035 * v, 0.125 - 0.02 * u + 0.07 * v) for u, v in turns]


def _distances(solids: Sequence[Solid], grid: Array, step: float) -> Array:
    """Compute the union's signed distance at every other grid point, and near the surface at every grid point."""
    sparse = grid[:, ::2, ::2, ::2]
    coarse = _union(solids, sparse.reshape(3, -1)).reshape(sparse.shape[1:])
    x, y, z = grid.shape[1:]
    distance: Array = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)[:x, :y, :z]
    near = np.abs(distance) < 3 * step  # the sparse point is at most 1.8 steps away
    distance[near] = _union(solids, grid[:, near])
    return distance


def _union(solids: Sequence[Solid], points: Array) -> Array:
    """Take the smooth minimum of all distances."""
    union = np.full(points.shape[1], 10, np.float32)
    for solid in solids:
        distance = solid.distance(points)
        overlap = np.maximum(solid.blend - np.abs(union - distance), 0)
        union = np.minimum(union, distance) - overlap * overlap / (4 * solid.blend)
    return union


def _colors(solids: Sequence[Solid], points: Array) -> Array:
    """Blend the colors of the solids near each point, then apply the paint regions."""
    weights = np.stack([np.exp(-np.maximum(solid.distance(points), 0) / 0.006) for solid in solids])
    colors = weights.T @ np.array([solid.color for solid in solids]) / (weights.sum(0)[:, None] + 1e-9)
    for solid in _paint():
        cover = 1 / (1 + np.exp(np.clip(solid.distance(points) / solid.blend * 5, -30, 30)))[:, None]
        colors += cover * (np.array(solid.color) - colors)
    return np.asarray(colors.clip(0, 1), np.float32)


def _norm(columns: Array) -> Array:
    x, y, z = columns
    return np.asarray(np.sqrt(x * x + y * y + z * z))


def _column(point: Sequence[float]) -> Array:
    return np.array(point, np.float32)[:, None]


def _ball(center: Point, radius: float) -> Distance:
    return lambda points: _norm(points - _column(center)) - np.float32(radius)


def _ellipsoid(center: Point, radii: Point, angles: Point = (0.0, 0.0, 0.0)) -> Distance:
    """Create an ellipsoid, rotated by `angles` about x, y and z."""
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.roll([[1, 0, 0], [0, c, -s], [0, s, c]], (axis, axis), (0, 1)) @ turn
    whiten = turn.T.astype(np.float32) / _column(radii)
    whiten_twice = whiten / _column(radii)

    def distance(points: Array) -> Array:
        offset = points - _column(center)
        size = _norm(whiten @ offset)
        guess = size * (size - 1) / np.maximum(_norm(whiten_twice @ offset), 1e-6)
        return np.maximum(guess, np.float32(-min(radii)))

    return distance


def _tube(path: Sequence[Point], radii: Sequence[float]) -> Distance:
    """Create a tube along a path, with a radius that changes linearly from the first to the last."""
    knots = np.linspace(radii[0], radii[-1], len(path))

    def distance(points: Array) -> Array:
        nearest = np.full(points.shape[1], 10, np.float32)
        for a, b, start, end in zip(path, path[1:], knots, knots[1:], strict=False):
            along, offset = _column(b) - _column(a), points - _column(a)
            t = ((along.T @ offset)[0] / np.float32((along**2).sum())).clip(0, 1)
            radius = np.float32(start) + t * np.float32(end - start)
            nearest = np.minimum(nearest, _norm(offset - along * t) - radius)
        return nearest

    return distance


def _arc(start: Point, control: Point, end: Point) -> list[Point]:
    """Sample a quadratic Bézier curve in six segments."""
    a, b, c = np.array(start), np.array(control), np.array(end)
    return [tuple((1 - t) ** 2 * a + 2 * t * (1 - t) * b + t * t * c) for t in np.linspace(0, 1, 7)]


def _ring(center: Point, radius: float, thickness: float) -> Distance:
    def distance(points: Array) -> Array:
        x, y, z = points - _column(center)
        return np.asarray(np.hypot(np.hypot(x, y) - np.float32(radius), z) - np.float32(thickness))

    return distance


def _blanket(center: Point, radii: Point, half_width: float, bottom: float) -> Distance:
    shell = _ellipsoid(center, radii)

    def distance(points: Array) -> Array:
        sides = np.abs(points[0] - np.float32(center[0])) - np.float32(half_width)
        return np.asarray(np.maximum.reduce([shell(points), sides, np.float32(bottom) - points[1]]))

    return distance
