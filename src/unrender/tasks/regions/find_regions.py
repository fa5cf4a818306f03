"""Flat regions of a mesh or a point cloud, where a suction cup or a gripper can hold it."""

import dataclasses
import math
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.tasks.regions.grip_pairs import GripPair, find_pairs
from unrender.tasks.regions.grow_planes import Plane, grow_planes
from unrender.tasks.regions.region_shape import (
    CELLS,
    boundary,
    frame_of,
    largest_disc,
    largest_rectangle,
    rasterize,
)
from unrender.tasks.regions.surface_points import MIN_POINTS, SurfacePoints, surface_points

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SortBy = Literal["area", "flatness", "cup_radius"]
DEFAULT_MIN_AREA = 0.01
"""Default smallest area of a region, as a fraction of the whole surface."""
NOISE_FACTOR, MIN_DEVIATION = 3.5, 1e-3
"""Default largest deviation: a multiple of the noise of the points, and at least a fraction of the diagonal."""

MIN_WIDTH = 1e-4
"""Smallest distance between opposite regions, as a fraction of the diagonal: faces that lie on each other are none."""
SMOOTH_COSINE = 0.999
"""Mean cosine of the angles between the faces of a region and its plane, above which a mesh counts as without noise."""
MIN_POINTS_FRACTION = 0.75
"""Points of the smallest region that is measured, relative to those that its area should have."""


@dataclasses.dataclass(frozen=True)
class FindRegions:
    """Find the flat regions of a surface."""

    min_area: float | None = None
    """Smallest area of a region, in square world units. Default: 1 % of the surface."""
    max_deviation: float | None = None
    """Largest distance of the surface from the plane of its region, in world units. Default: 3.5 times the noise of the
    points, but at least 0.1 % of the diagonal of the bounding box."""
    cup_radius: float = 0.0
    """Radius of a suction cup in world units: only regions in which its disc fits are listed."""
    pairs: float | None = None
    """Opening of a two-finger gripper in world units: list pairs of opposite, parallel regions that fit into it."""
    sort_by: SortBy = "area"
    """Order of the regions: by area, by their flatness (the flattest first), or by the radius of the largest disc."""
    max_points: int = 40_000
    """Points that a mesh is sampled at, and to which larger point clouds are subsampled."""
    seed: int = 0
    """Seed of the sampling."""


@dataclasses.dataclass(frozen=True)
class FlatRegion:
    """A connected part of a surface that is nearly flat. Lengths are in world units."""

    area: float
    """In square world units."""
    center: Floats
    """Mean of its points, on the plane [3]."""
    normal: Floats
    """Outward unit normal of the plane [3], fitted by least squares."""
    rms_deviation: float
    """Root mean square distance of its points from the plane, noise included."""
    largest_deviation: float
    boundary: tuple[Floats, ...]
    """Closed outlines [points, 3] on the plane, the outer one first; the others are holes."""
    disc_center: Floats
    """Center [3] of the largest disc inside the boundary."""
    disc_radius: float
    rectangle: Floats
    """Corners [4, 3] of the largest rectangle inside the boundary."""
    rectangle_size: tuple[float, float]
    """Its sides, the longer one first."""


@dataclasses.dataclass(frozen=True)
class FlatRegions:
    """The flat regions of a surface, and the points they were found from."""

    regions: tuple[FlatRegion, ...]
    pairs: tuple[GripPair, ...]
    """Pairs of opposite regions, best first: those with the largest common disc."""
    points: Floats
    """Samples of the surface [points, 3]."""
    labels: Ints
    """Number of the region of each point; −1 for none."""
    face_ids: Ints | None
    """Face that each point was sampled on; None for a point cloud."""
    max_deviation: float
    """Largest distance from a plane that was allowed."""
    min_area: float
    """Area from which on regions are listed."""


def find_regions(surface: Mesh | PointCloud, config: FindRegions = FindRegions()) -> FlatRegions:
    """Find the connected, nearly flat regions of a surface, and how large a disc and a rectangle fit into each.

    Planes grow from the flattest points over neighbors within `max_deviation` and are fitted again as they grow; at the
    end each point belongs to the nearest plane. A mesh is sampled evenly, so its tessellation does not matter. Areas of
    point clouds suppose an even density within a region. The normals of a point cloud orient the regions; without any,
    they are estimated as those of a closed surface, which can be wrong for scans from one side.

    Raises InputError for settings out of range and for surfaces that are empty, too small or not finite.
    """
    _check(config)
    points = surface_points(surface, config.max_points, config.seed)
    deviation = config.max_deviation
    if deviation is None:
        noise = float(np.median(points.spread))
        deviation = max(NOISE_FACTOR * noise, MIN_DEVIATION * points.diagonal)
    area = min(points.area, points.estimated_area)
    min_area = DEFAULT_MIN_AREA * area if config.min_area is None else config.min_area
    min_points = max(MIN_POINTS // 2, int(MIN_POINTS_FRACTION * min_area / points.area * len(points.points)))
    planes = grow_planes(points, deviation, min_points)
    described = ((_region(points, plane), plane) for plane in planes)
    listed = [
        (region, plane)
        for region, plane in described
        if region.area >= min_area and region.disc_radius >= config.cup_radius
    ]
    listed.sort(key=lambda found: _sort_key(found[0], config.sort_by))
    labels = np.full(len(points.points), -1)
    for index, (_, plane) in enumerate(listed):
        labels[plane.members] = index
    pairs: tuple[GripPair, ...] = ()
    if config.pairs is not None:
        pairs = find_pairs(
            [(plane.normal, points.points[plane.members]) for _, plane in listed], config.pairs
        )
    regions = tuple(region for region, _ in listed)
    return FlatRegions(regions, pairs, points.points, labels, points.face_ids, deviation, min_area)


def _check(config: FindRegions) -> None:
    for name in ("min_area", "max_deviation", "pairs"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"find_regions: `{name}` should be positive and finite, got {value}")
    if not 0 <= config.cup_radius < math.inf:
        raise InputError(f"find_regions: `cup_radius` should be 0 or more, got {config.cup_radius}")
    if isinstance(config.seed, bool) or not isinstance(config.seed, int) or config.seed < 0:
        raise InputError(f"find_regions: `seed` should be a whole number from 0 on, got {config.seed!r}")
    if not 1000 <= config.max_points <= 1_000_000:
        raise InputError(f"find_regions: `max_points` should be 1,000 to 1,000,000, got {config.max_points}")
    if config.sort_by not in get_args(SortBy):
        raise InputError(
            f"find_regions: `sort_by` should be one of {', '.join(get_args(SortBy))}, got {config.sort_by!r}"
        )


def _region(surface: SurfacePoints, plane: Plane) -> FlatRegion:
    points = surface.points[plane.members]
    distances = points @ plane.normal - plane.offset
    center = points.mean(0)
    center = center - (center @ plane.normal - plane.offset) * plane.normal
    frame = frame_of(plane.normal, center)
    raster = rasterize(frame.flat(points), CELLS)
    disc_center, disc_radius = largest_disc(raster)
    corners = largest_rectangle(raster)
    sides = np.linalg.norm(corners[1] - corners[0]), np.linalg.norm(corners[2] - corners[1])
    area = float(raster.inside.sum()) * raster.cell**2
    if surface.face_normals is not None:
        cosines = surface.face_normals[plane.members] @ plane.normal
        if float(cosines.mean()) > SMOOTH_COSINE:  # then counting samples is more accurate
            area = surface.area * float(cosines.sum()) / len(surface.points)
    return FlatRegion(
        area,
        center,
        plane.normal,
        float(np.sqrt(np.mean(distances**2))),
        float(np.abs(distances).max()),
        tuple(frame.world(outline) for outline in boundary(raster)),
        frame.world(disc_center),
        disc_radius,
        frame.world(corners),
        (float(max(sides)), float(min(sides))),
    )


def _sort_key(region: FlatRegion, sort_by: SortBy) -> float:
    if sort_by == "flatness":
        return region.rms_deviation
    return -(region.area if sort_by == "area" else region.disc_radius)
