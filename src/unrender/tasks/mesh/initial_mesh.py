"""Initial closed meshes for a fit, from the points alone."""

import logging

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.level_set import Array, extract_level_set
from unrender.geometry.mesh import Mesh
from unrender.geometry.neighborhoods import one_sided_spread
from unrender.geometry.orient import propagate_signs
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.shapes import ico_sphere
from unrender.geometry.topology import connected_components, keep_faces
from unrender.geometry.winding_number import (
    LAST_WIDTH,
    smooth_normals,
    winding_number_normals,
    winding_number_surface,
)
from unrender.kernels.closest_on_mesh import closest_on_mesh
from unrender.kernels.nearest import index_points, nearest
from unrender.tasks.mesh.prepare_cloud import FLAT_QUANTILE, PreparedCloud

MIN_SUPPORT = 0.01
"""Minimum fraction of the points to which a connected component is closest; others are removed."""
MIN_OBSERVED_FRACTION = 0.4
"""Minimum fraction of a solid's surface near points; below, a shell is used instead."""
CREDIBLE_FRACTION = 0.8
"""Fraction of a solid's surface near points from which the signs of given normals are not questioned."""
MIN_GAIN = 0.1
"""Minimum gain of that fraction from which other normals than the given ones are used."""
MARGIN = 0.15
"""Maximum distance of the surface from the convex hull of the points, relative to the diagonal."""
CELL = 0.7
"""Size of the grid cells, relative to the spacing of the points."""
MIN_CELLS = 48
"""Minimum number of cells along the longest side of the points' bounding box."""
log = logging.getLogger("unrender")


def initial_mesh(cloud: PreparedCloud, kind: str, *, is_open: bool = False) -> Mesh:
    """Create the initial shape; auto is the solid, or a thin shell if most of the solid is unobserved.

    An open surface is part of a solid, whose unobserved part is trimmed later.
    """
    if kind == "sphere":
        return _sphere(cloud.points)
    if kind == "hull":
        return _hull(cloud.points)
    if kind == "shell":
        return _shell(cloud)
    if is_open:
        normals = cloud.local.normals if cloud.normals is None else cloud.normals
        return _surface(cloud, propagate_signs(cloud.points, normals))
    solid = _solid(cloud)
    if kind == "auto" and _observed_fraction(solid, cloud) < MIN_OBSERVED_FRACTION:
        log.info("the points do not enclose a solid; using a thin shell around them as the initial shape")
        return _shell(cloud)
    return solid


def _sphere(points: Float[Tensor, "points 3"]) -> Mesh:
    """Create a bounding sphere of the points."""
    sphere = ico_sphere(4).to(points.dtype)
    center = (points.amin(0) + points.amax(0)) / 2
    radius = (points - center).norm(dim=1).max()
    return sphere.replace(vertices=center + radius * sphere.vertices)


def _hull(points: Float[Tensor, "points 3"]) -> Mesh:
    """Compute the convex hull, with outward normals."""
    from scipy.spatial import ConvexHull

    hull = ConvexHull(points.numpy())
    faces = np.searchsorted(np.sort(hull.vertices), hull.simplices)
    vertices = points.numpy()[np.sort(hull.vertices)]
    a, b, c = vertices[faces].transpose(1, 0, 2)
    inward = (np.cross(b - a, c - a) * hull.equations[:, :3]).sum(1) < 0
    faces[inward] = faces[inward, ::-1]
    return Mesh(torch.from_numpy(vertices), torch.from_numpy(faces.astype(np.int64)))


def _solid(cloud: PreparedCloud) -> Mesh:
    """Reconstruct the surface of a solid, of any genus, from the points.

    Uses the normals of the cloud, or estimated ones. If much of the solid is far from all points, the signs of the
    given normals may be wrong, as of normals turned upwards: if others give a solid that is closer to the points, these
    are used. Unobserved regions are closed within the convex hull.
    """
    if cloud.normals is None:
        return _surface(cloud, _estimated_normals(cloud))
    best = _surface(cloud, _outward(cloud, cloud.normals))
    observed = _observed_fraction(best, cloud)
    if observed >= CREDIBLE_FRACTION:
        return best
    estimated = _estimated_normals(cloud)
    agree = torch.where((cloud.normals * estimated).sum(1, keepdim=True) < 0, -1.0, 1.0)
    for normals, change in (
        (cloud.normals * agree, "their signs were estimated again"),
        (estimated, "normals were estimated from the points"),
    ):
        other = _surface(cloud, normals)
        fraction = _observed_fraction(other, cloud)
        if fraction > observed + MIN_GAIN:
            log.warning("the given normals do not fit the points, as if turned to one side; %s", change)
            best, observed = other, fraction
    return best


def _outward(cloud: PreparedCloud, normals: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
    """Flip all normals if they enclose a negative volume."""
    offsets = cloud.points - cloud.points.mean(0)
    volume = float((offsets * normals).sum(1).numpy() @ cloud.local.areas.numpy())
    return -normals if volume < 0 else normals


def _estimated_normals(cloud: PreparedCloud) -> Float[Tensor, "points 3"]:
    """Estimate normals, and smooth them where there is noise, which misleads the extrapolation of incomplete clouds."""
    points, areas = (t.to(cloud.device) for t in (cloud.points, cloud.local.areas))
    normals = winding_number_normals(points, areas, cloud.spacing, width=0.0)
    width = _width(cloud, normals.cpu())
    if width > LAST_WIDTH * cloud.spacing:
        normals = smooth_normals(points, normals, areas, width=width)
    return _outward(cloud, normals.cpu())


def _surface(cloud: PreparedCloud, normals: Float[Tensor, "points 3"]) -> Mesh:
    mesh = winding_number_surface(
        *(t.to(cloud.device) for t in (cloud.points, normals, cloud.local.areas)),
        width=_width(cloud, normals),
        cell=_cell(cloud),
        reach=min(2 * cloud.spacing, MARGIN),
    )
    return keep_supported(mesh.to("cpu"), cloud.points)


def _width(cloud: PreparedCloud, normals: Float[Tensor, "points 3"]) -> float:
    """Return the width over which winding numbers are smoothed, from the noise on one side of thin parts."""
    spread = one_sided_spread(cloud.points, normals).numpy()
    noise = cloud.noise if np.isnan(spread).all() else float(np.nanquantile(spread, FLAT_QUANTILE))
    return 0.5 * cloud.spacing + 2 * min(noise, cloud.noise)


def _cell(cloud: PreparedCloud) -> float:
    extent = float((cloud.points.amax(0) - cloud.points.amin(0)).max())
    return min(CELL * cloud.spacing, extent / MIN_CELLS)


def _shell(cloud: PreparedCloud) -> Mesh:
    """Create a thin closed shell around the points, of any genus."""
    radius, cell = min(1.6 * cloud.spacing, MARGIN), _cell(cloud)
    index = index_points(cloud.points)

    def inside(positions: Array) -> Array:
        squared = nearest(torch.from_numpy(positions), index).distances[:, 0]
        return (radius - squared.sqrt()).numpy()

    return keep_supported(extract_level_set(inside, cloud.points, cell, margin=2 * radius), cloud.points)


def _observed_fraction(mesh: Mesh, cloud: PreparedCloud) -> float:
    """Compute the fraction of a surface within 1.5 spacings of a point."""
    samples = sample_points_from_mesh(mesh, 10_000, generator=torch.Generator().manual_seed(0)).points
    distances = nearest(samples, cloud.points).distances
    return float((distances < (1.5 * cloud.spacing) ** 2).double().mean())


def keep_supported(mesh: Mesh, points: Float[Tensor, "points 3"]) -> Mesh:
    """Remove connected components to which few points are closest."""
    labels = connected_components(mesh.faces, len(mesh.vertices))[mesh.faces[:, 0]]
    closest = labels[closest_on_mesh(points, mesh.vertices, mesh.faces).face_ids]
    kept = torch.bincount(closest, minlength=int(labels.max()) + 1) >= MIN_SUPPORT * len(points)
    if not bool(kept.any()):
        raise InputError("fit_mesh: no closed surface found near the points; try start='hull'")
    return mesh if bool(kept.all()) else keep_faces(mesh, kept[labels])
