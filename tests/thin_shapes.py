"""Thin solids as signed distance functions: wires, plates with holes, combs, cups and close sheets."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from skimage.measure import marching_cubes

from unrender import Mesh, PointCloud, sample_points_from_mesh

Array = npt.NDArray[np.float64]


class ThinShape(NamedTuple):
    distance: Callable[[Array, Array, Array], Array]
    """Signed distance, negative inside."""
    half_extent: tuple[float, float, float]
    genus: int
    bodies: int = 1

    def mesh(self, cell: float = 0.012) -> Mesh:
        axes = [np.arange(-e - 3 * cell, e + 3 * cell, cell) for e in self.half_extent]
        values = self.distance(*np.meshgrid(*axes, indexing="ij", sparse=True))
        vertices, faces, _, _ = marching_cubes(values, 0.0)
        origin = np.array([axis[0] for axis in axes])
        return Mesh(torch.from_numpy(origin + cell * vertices), torch.from_numpy(faces.astype(np.int64)))

    def scan(self, count: int, noise: float = 0.0, *, normals: bool = False) -> PointCloud:
        """Sample the surface at random, with noise relative to the diagonal."""
        generator = torch.Generator().manual_seed(0)
        samples = sample_points_from_mesh(self.mesh(), count, generator=generator)
        points = samples.points.double()
        diagonal = float((points.amax(0) - points.amin(0)).norm())
        noisy = points + noise * diagonal * torch.randn(
            points.shape, generator=generator, dtype=torch.float64
        )
        return PointCloud(noisy, samples.normals.double() if normals else None)


def box(x: Array, y: Array, z: Array, half: tuple[float, float, float]) -> Array:
    return np.maximum(np.maximum(abs(x) - half[0], abs(y) - half[1]), abs(z) - half[2])


def ring(x: Array, y: Array, z: Array) -> Array:
    return np.hypot(np.hypot(x, y) - 1, z) - 0.04


def perforated_plate(x: Array, y: Array, z: Array) -> Array:
    holes = [np.hypot(x - u, y - v) - 0.13 for u in (-0.75, -0.25, 0.25, 0.75) for v in (-0.4, 0.0, 0.4)]
    return np.maximum(box(x, y, z, (1.0, 0.7, 0.03)), -np.minimum.reduce(holes))


def comb(x: Array, y: Array, z: Array) -> Array:
    teeth = [box(x - u, y, z, (0.03, 0.6, 0.03)) for u in np.linspace(-0.9, 0.9, 10)]
    return np.minimum(np.minimum.reduce(teeth), box(x, y + 0.6, z, (1.0, 0.1, 0.06)))


def cup(x: Array, y: Array, z: Array) -> Array:
    radius = np.hypot(x, y)
    wall = np.maximum(np.maximum(radius - 0.5, abs(z) - 0.5), -np.maximum(radius - 0.46, -0.44 - z))
    handle = np.maximum(np.hypot(np.hypot(x - 0.5, z) - 0.28, y) - 0.04, 0.47 - radius)
    return np.minimum(wall, handle)


def close_sheets(x: Array, y: Array, z: Array) -> Array:
    return np.minimum(box(x, y, z - 0.06, (0.8, 0.8, 0.025)), box(x, y, z + 0.06, (0.8, 0.8, 0.025)))


def thin_plate(x: Array, y: Array, z: Array) -> Array:
    return box(x, y, z, (0.8, 0.6, 0.018))


def fence(x: Array, y: Array, z: Array) -> Array:
    bars = [box(x - u, y, z, (0.03, 0.5, 0.03)) for u in np.linspace(-0.9, 0.9, 10)]
    rails = [box(x, y - v, z, (1.0, 0.06, 0.04)) for v in (-0.5, 0.5)]
    return np.minimum.reduce(bars + rails)


def coil(x: Array, y: Array, z: Array) -> Array:
    turn = (z - 0.3 * np.arctan2(y, x) / (2 * np.pi)) / 0.3
    along = 0.3 * (turn - np.clip(np.round(turn), -2, 2))
    return np.hypot(np.hypot(x, y) - 0.6, along) - 0.045


SHAPES = {
    "ring": ThinShape(ring, (1.1, 1.1, 0.1), 1),
    "perforated plate": ThinShape(perforated_plate, (1.0, 0.7, 0.1), 12),
    "comb": ThinShape(comb, (1.0, 0.8, 0.1), 0),
    "cup": ThinShape(cup, (0.9, 0.6, 0.6), 1),
    "close sheets": ThinShape(close_sheets, (0.8, 0.8, 0.1), 0, 2),
    "thin plate": ThinShape(thin_plate, (0.8, 0.6, 0.05), 0),
    "fence": ThinShape(fence, (1.0, 0.6, 0.1), 9),
    "coil": ThinShape(coil, (0.7, 0.7, 0.8), 0),
}
