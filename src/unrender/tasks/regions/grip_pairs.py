"""Pairs of opposite, parallel regions that a two-finger gripper can hold."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from unrender.tasks.regions.region_shape import CELLS, frame_of, largest_disc, rasterize, rasterize_on
from unrender.tasks.regions.surface_points import Floats

MAX_ANGLE_DEGREES = 5.0
"""Between the normal of a region and the reversed normal of the opposite one."""


@dataclasses.dataclass(frozen=True)
class GripPair:
    """Two opposite regions, and where to hold them. Lengths are in world units."""

    first: int
    """Number of the region on one side."""
    second: int
    """Number of the opposite region."""
    width: float
    """Distance between the two along the axis, at the center of the common disc."""
    angle_degrees: float
    """By which the regions differ from parallel."""
    center: Floats
    """Middle between the fingers [3]: at the center of the largest disc that both regions share."""
    axis: Floats
    """Closing direction of the fingers [3], unit length: outward from the first region."""
    disc_radius: float
    """Radius of the largest disc in the part where the regions face each other."""
    area: float
    """Area of that part."""


def find_pairs(regions: Sequence[tuple[Floats, Floats]], max_width: float) -> tuple[GripPair, ...]:
    """Find pairs among regions, given by outward normal and points, at most `max_width` apart; best first."""
    pairs = []
    for first, (normal, points) in enumerate(regions):
        for second in range(first + 1, len(regions)):
            pair = _pair(first, second, (normal, points), regions[second])
            if pair is not None and pair.width <= max_width:
                pairs.append(pair)
    return tuple(sorted(pairs, key=lambda pair: -pair.disc_radius))


def _pair(
    first: int, second: int, one: tuple[Floats, Floats], other: tuple[Floats, Floats]
) -> GripPair | None:
    (normal, points), (opposite, others) = one, other
    cosine = min(1.0, float(-(normal @ opposite)))
    if cosine < math.cos(math.radians(MAX_ANGLE_DEGREES)):
        return None
    axis = normal - opposite
    axis /= np.linalg.norm(axis)
    frame = frame_of(axis, points.mean(0))
    if float((frame.origin - others.mean(0)) @ axis) <= 0:  # they face each other across a gap
        return None
    raster = rasterize(frame.flat(points), CELLS)
    inside = raster.inside & rasterize_on(raster, frame.flat(others)).inside
    if not inside.any():
        return None
    flat, radius = largest_disc(raster, inside)
    center = frame.world(flat)
    heights = [
        float((plane.mean(0) - center) @ direction) / float(axis @ direction)
        for plane, direction in ((points, normal), (others, opposite))
    ]
    return GripPair(
        first,
        second,
        heights[0] - heights[1],
        math.degrees(math.acos(cosine)),
        center + axis * (heights[0] + heights[1]) / 2,
        axis,
        radius,
        float(inside.sum()) * raster.cell**2,
    )
