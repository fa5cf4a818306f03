"""The shape of a flat region in its plane: area, boundary, and the largest disc and rectangle inside."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from unrender.tasks.regions.surface_points import Floats, Ints

Flags = npt.NDArray[np.bool_]
NEIGHBORS = 6
"""Neighbors that the spacing of points is measured by."""
BLUR = 2.0
"""Standard deviation of the smoothing of the density of points, in spacings."""
MARGIN = 3.0
"""Around a region, in standard deviations."""
SMALLEST_HOLE = 6.0
"""Area of the smallest hole, in squared standard deviations; random points leave smaller gaps."""
CELLS = 160
"""Cells along the longer side of the raster of a region."""
COARSE_CELLS = 72
"""The same for the search of the largest rectangle."""
ANGLES = np.arange(0.0, 90.0, 5.0)
"""Directions of rectangles that are tried first, in degrees; then those between the best one and its neighbors."""
REFINED_ANGLES = np.arange(-4.0, 5.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Frame:
    """Coordinates in a plane."""

    origin: Floats
    axes: Floats
    """Two unit vectors [2, 3] in the plane; their cross product is its normal."""

    def flat(self, points: Floats) -> Floats:
        """Return the coordinates [n, 2] of points, projected onto the plane."""
        return (points - self.origin) @ self.axes.T

    def world(self, flat: Floats) -> Floats:
        """Return the points [n, 3] of the plane with these coordinates."""
        return self.origin + flat @ self.axes


@dataclasses.dataclass(frozen=True)
class Raster:
    """Which cells of a grid in a plane are inside a region."""

    low: Floats
    """Center of the first cell."""
    cell: float
    """Side of a cell."""
    density: Floats
    """Smoothed density of points relative to its median over them; at a straight edge it is one half."""
    blur: float
    """Standard deviation of the smoothing."""

    @property
    def inside(self) -> Flags:
        """Whether cells are inside; gaps that are as small as those between random points are, too."""
        from scipy.ndimage import label

        inside = self.density >= 0.5
        labels, count = label(~inside)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        border = [labels[0], labels[-1], labels[:, 0], labels[:, -1]]
        is_gap = sizes * self.cell**2 < SMALLEST_HOLE * self.blur**2
        is_gap[np.unique(np.concatenate(border))] = False  # they are outside
        return np.asarray(inside | is_gap[labels])

    def positions(self, indices: Floats | Ints) -> Floats:
        """Return the plane coordinates of grid indices, which may lie between cells."""
        return self.low + self.cell * indices


def frame_of(normal: Floats, origin: Floats) -> Frame:
    """Return coordinates in the plane through a point."""
    aside = np.zeros(3)
    aside[np.abs(normal).argmin()] = 1
    first = np.cross(aside, normal)
    first /= np.linalg.norm(first)
    return Frame(origin, np.stack([first, np.cross(normal, first)]))


def rasterize(flat: Floats, cells: int) -> Raster:
    """Rasterize a region, given by the coordinates [n, 2] of its points, with a margin."""
    from scipy.spatial import KDTree

    count = min(NEIGHBORS, len(flat) - 1)
    farthest = np.asarray(KDTree(flat).query(flat, count + 1)[0])[:, -1]  # the first one is the point itself
    blur = BLUR * math.sqrt(math.pi / count) * float(np.median(farthest))
    low, high = flat.min(0) - MARGIN * blur, flat.max(0) + MARGIN * blur
    cell = min(float((high - low).max()) / cells, blur)
    shape = tuple(np.ceil((high - low) / cell).astype(int) + 1)
    return rasterize_on(Raster(low, cell, np.zeros(shape), blur), flat)


def rasterize_on(grid: Raster, flat: Floats) -> Raster:
    """Rasterize a region on the grid of another one; points outside of it are ignored."""
    from scipy.ndimage import gaussian_filter

    density = np.zeros(grid.density.shape)
    cells = np.rint((flat - grid.low) / grid.cell).astype(int)
    cells = cells[((cells >= 0) & (cells < density.shape)).all(1)]
    np.add.at(density, tuple(cells.T), 1)
    density = gaussian_filter(density, grid.blur / grid.cell, mode="constant")
    usual = float(np.median(density[tuple(cells.T)])) if len(cells) else 1.0
    return dataclasses.replace(grid, density=density / usual)


def boundary(raster: Raster) -> list[Floats]:
    """Return the closed outlines [n, 2] of a region, by enclosed area: the outer one, then holes and islands."""
    from skimage.measure import find_contours

    outlines = [raster.positions(outline) for outline in find_contours(raster.density, 0.5)]
    areas = [_enclosed_area(outline) for outline in outlines]
    order = [index for index in np.argsort(areas)[::-1] if areas[index] >= SMALLEST_HOLE * raster.blur**2]
    return [outlines[index] for index in order]


def _enclosed_area(outline: Floats) -> float:
    x, y = (outline[:-1] - outline[0]).T
    return abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2


def largest_disc(raster: Raster, inside: Flags | None = None) -> tuple[Floats, float]:
    """Return the center [2] and the radius of the largest disc inside a region; the radius may be 0."""
    from scipy.ndimage import distance_transform_edt

    distances = distance_transform_edt(np.pad(raster.inside if inside is None else inside, 1))[1:-1, 1:-1]
    best = np.unravel_index(int(distances.argmax()), distances.shape)
    radius = max(float(distances[best]) - 0.5, 0.0) * raster.cell
    return raster.positions(np.array(best, float)), radius


def largest_rectangle(raster: Raster) -> Floats:
    """Return the corners [4, 2] of the largest rectangle inside a region, in any direction."""
    inside = raster.inside
    first = max((_rectangle(raster, inside, angle) for angle in ANGLES), key=lambda found: found.area)
    refined = (_rectangle(raster, inside, first.degrees + more) for more in REFINED_ANGLES)
    return max(refined, key=lambda found: found.area).corners


class _Rectangle(NamedTuple):
    area: float
    degrees: float
    corners: Floats


def _rectangle(raster: Raster, inside: Flags, degrees: float) -> _Rectangle:
    """Return the largest rectangle with a given direction."""
    from scipy.ndimage import map_coordinates

    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turned = np.argwhere(inside) @ turn.T
    low, high = turned.min(0) - 0.5, turned.max(0) + 0.5
    cell = float((high - low).max()) / COARSE_CELLS
    shape = np.maximum(np.floor((high - low) / cell).astype(int), 1)
    grid = low + cell * np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij"), -1)
    values = map_coordinates(inside.astype(float), np.moveaxis(grid @ turn, -1, 0), order=1)
    rows, columns = _largest_block(values >= 0.5)
    (x0, x1), (y0, y1) = (rows.start, rows.stop), (columns.start, columns.stop)
    corners = low + cell * np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)
    return _Rectangle(float((x1 - x0) * (y1 - y0)) * cell**2, degrees, raster.positions(corners @ turn))


def _largest_block(inside: Flags) -> tuple[slice, slice]:
    """Return the rows and columns of the largest block of true values."""
    sums = np.pad(inside.cumsum(0), ((1, 0), (0, 0)))
    best, found = 0, (slice(0, 0), slice(0, 0))
    columns = np.arange(inside.shape[1])
    for height in range(1, len(inside) + 1):
        full = sums[height:] - sums[:-height] == height
        if height * inside.shape[1] <= best or not full.any():
            continue
        last_gap = np.maximum.accumulate(np.where(full, -1, columns), axis=1)
        runs = columns - last_gap
        row, column = np.unravel_index(int(runs.argmax()), runs.shape)
        if height * runs[row, column] > best:
            best = height * int(runs[row, column])
            stop = int(column) + 1
            found = slice(int(row), int(row) + height), slice(stop - int(runs[row, column]), stop)
    return found
