"""Initial closed meshes for a fit, from the points alone."""

import logging

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.orient import propagate_signs
from unrender.geometry.poisson import MARGIN, orient_normals, poisson_surface, shell_surface
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.shapes import ico_sphere
from unrender.geometry.topology import connected_components, keep_faces
from unrender.kernels.closest_on_mesh import closest_on_mesh
from unrender.kernels.nearest import nearest
from unrender.tasks.mesh.prepare_cloud import PreparedCloud

MIN_SUPPORT = 0.01
"""Minimum fraction of the points to which a connected component is closest; others are removed."""
MIN_OBSERVED_FRACTION = 0.4
"""Minimum fraction of a solid's surface near points; below, a shell is used instead."""
CREDIBLE_FRACTION = 0.8
"""Fraction of a solid's surface near points from which the signs of given normals are not questioned."""
MIN_GAIN = 0.1
"""Minimum gain of that fraction from which other normals than the given ones are used."""
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
        return _poisson(cloud, propagate_signs(cloud.points, normals))
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

    Uses the normals of the cloud, or estimated ones that are oriented consistently. If much of the solid is far from
    all points, the signs of the given normals may be wrong, as of normals turned upwards: if others give a solid that
    is closer to the points, these are used. Unobserved regions are closed within the convex hull.
    """
    if cloud.normals is None:
        return _solid_from(cloud, cloud.local.normals, trust_signs=False)
    best = _solid_from(cloud, cloud.normals, trust_signs=True)
    observed = _observed_fraction(best, cloud)
    if observed >= CREDIBLE_FRACTION:
        return best
    for normals, change in (
        (cloud.normals, "their signs were estimated again"),
        (cloud.local.normals, "normals were estimated from the points"),
    ):
        other = _solid_from(cloud, normals, trust_signs=False)
        fraction = _observed_fraction(other, cloud)
        if fraction > observed + MIN_GAIN:
            log.warning("the given normals do not fit the points, as if turned to one side; %s", change)
            best, observed = other, fraction
    return best


def _solid_from(cloud: PreparedCloud, normals: Float[Tensor, "points 3"], *, trust_signs: bool) -> Mesh:
    oriented = orient_normals(
        cloud.points,
        normals,
        cloud.local.areas,
        trust_signs=trust_signs,
        resolution=min(_resolution(cloud), 128),
    )
    return _poisson(cloud, oriented)


def _poisson(cloud: PreparedCloud, oriented: Float[Tensor, "points 3"]) -> Mesh:
    mesh = poisson_surface(
        cloud.points,
        oriented,
        cloud.local.areas,
        resolution=_resolution(cloud),
        reach=min(2 * cloud.spacing, MARGIN),
    )
    return keep_supported(mesh, cloud.points)


def _shell(cloud: PreparedCloud) -> Mesh:
    """Create a thin closed shell around the points, of any genus."""
    mesh = shell_surface(cloud.points, min(1.6 * cloud.spacing, MARGIN), resolution=_resolution(cloud))
    return keep_supported(mesh, cloud.points)


def _resolution(cloud: PreparedCloud) -> int:
    extent = float((cloud.points.amax(0) - cloud.points.amin(0)).max()) + 2 * MARGIN
    return int(np.clip(extent / cloud.spacing, 64, 192))


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
