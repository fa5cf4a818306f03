"""Planes that grow over a surface: all points near a plane that are connected to its seed."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from unrender.tasks.regions.surface_points import Floats, Ints, SurfacePoints

Flags = npt.NDArray[np.bool_]
MAX_ANGLE = math.radians(35)
"""Between the normals of the points of a region and that of its plane; normals bend near edges."""
MAX_ANGLE_AT_EDGES = math.radians(110)
"""The same for points beside a region that are assigned to the nearest plane at the end."""
EDGE_HOPS = 4
"""How far beside a region they may be, in steps between neighbors: normals bend over several points."""
GROWTH = 1.3
"""The plane is fitted again whenever a region has grown by this factor."""
REFINEMENTS = 3


class Plane(NamedTuple):
    """The points where normal · x = offset, and which of the surface's points belong to it."""

    normal: Floats
    offset: float
    members: Ints


def grow_planes(surface: SurfacePoints, max_deviation: float, min_points: int) -> list[Plane]:
    """Grow regions from the flattest points on, until all points are in one or cannot be; largest first.

    max_deviation: largest distance of a point from the plane of its region.
    min_points: points of the smallest region.
    """
    free = np.ones(len(surface.points), bool)
    is_seed = surface.spread <= max_deviation
    planes = []
    for seed in np.argsort(surface.spread, kind="stable"):
        if not (free[seed] and is_seed[seed]):
            continue
        members = _grow(surface, int(seed), free, max_deviation)
        is_seed[members] = False
        if len(members) >= min_points:
            free[members] = False
            planes.append(_fitted(surface, members))
    planes = _assigned(surface, planes, max_deviation)
    planes = [plane for plane in planes if len(plane.members) >= min_points]
    return sorted(planes, key=lambda plane: -len(plane.members))


def _fitted(surface: SurfacePoints, members: Ints) -> Plane:
    """Fit a plane to points by least squares; its normal has the sign of theirs."""
    points = surface.points[members]
    center = points.mean(0)
    offsets = points - center
    normal = np.linalg.eigh(offsets.T @ offsets)[1][:, 0]
    if (surface.normals[members] @ normal).sum() < 0:
        normal = -normal
    return Plane(normal, float(normal @ center), members)


def _is_near(
    surface: SurfacePoints, ids: Ints, plane: Plane, max_deviation: float, max_angle: float
) -> Flags:
    distances = np.abs(surface.points[ids] @ plane.normal - plane.offset)
    return (distances <= max_deviation) & (surface.normals[ids] @ plane.normal >= math.cos(max_angle))


def _grow(surface: SurfacePoints, seed: int, free: Flags, max_deviation: float) -> Ints:
    """Return the free points near a plane that are connected to a seed; the plane follows them."""
    start = surface.neighbors[seed]
    plane = _fitted(surface, np.append(start[free[start]], seed))
    members = _flood(surface, np.array([seed]), plane, free, max_deviation, refits=True)
    for _ in range(REFINEMENTS):
        if len(members) < 3:
            break
        plane = _fitted(surface, members)
        start = members[_is_near(surface, members, plane, max_deviation, MAX_ANGLE)][:1]
        if len(start) == 0:
            break
        members = _flood(surface, start, plane, free, max_deviation)
    return members if len(members) else np.array([seed])


def _flood(
    surface: SurfacePoints,
    start: Ints,
    plane: Plane,
    free: Flags,
    max_deviation: float,
    *,
    refits: bool = False,
) -> Ints:
    """Return the free points near a plane that are connected to `start`; with `refits`, the plane is fitted to them."""
    reached = np.zeros(len(free), bool)
    reached[start] = True
    frontier, count, count_at_fit = start, len(start), len(plane.members)
    while len(frontier):
        found = np.unique(surface.neighbors[frontier])
        found = found[free[found] & ~reached[found]]
        frontier = found[_is_near(surface, found, plane, max_deviation, MAX_ANGLE)]
        reached[frontier] = True
        count += len(frontier)
        if refits and count > GROWTH * count_at_fit:
            plane, count_at_fit = _fitted(surface, np.flatnonzero(reached)), count
    return np.flatnonzero(reached)


def _assigned(surface: SurfacePoints, planes: list[Plane], max_deviation: float) -> list[Plane]:
    """Assign each point to the nearest plane that it is connected to: noise moves as many over an edge as back."""
    nearest = np.full(len(surface.points), np.inf)
    owner = np.full(len(surface.points), -1)
    everywhere = np.ones(len(surface.points), bool)
    for index, plane in enumerate(planes):
        members = _flood(surface, plane.members, plane, everywhere, max_deviation)
        for _ in range(EDGE_HOPS):
            beside = np.unique(np.append(members, surface.neighbors[members]))
            members = beside[_is_near(surface, beside, plane, max_deviation, MAX_ANGLE_AT_EDGES)]
        distances = np.abs(surface.points[members] @ plane.normal - plane.offset)
        is_nearer = distances < nearest[members]
        nearest[members[is_nearer]], owner[members[is_nearer]] = distances[is_nearer], index
    owned = [np.flatnonzero(owner == index) for index in range(len(planes))]
    return [_fitted(surface, members) for members in owned if len(members) >= 3]
