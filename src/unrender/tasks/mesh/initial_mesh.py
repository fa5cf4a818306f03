"""Closed meshes to begin a fit with, from the points alone."""

import logging

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.poisson import MARGIN, orient_normals, poisson_surface, shell_surface
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.shapes import ico_sphere
from unrender.geometry.topology import connected_components, keep_faces
from unrender.kernels.closest_on_mesh import closest_on_mesh
from unrender.kernels.nearest import nearest
from unrender.tasks.mesh.prepare_cloud import PreparedCloud

LEAST_SHARE = 0.01
"""Connected parts of a surface that are nearest to fewer of the points are dropped."""
LEAST_SEEN = 0.4
"""Share of a solid's surface near points, for it to be believed."""
log = logging.getLogger("unrender")


def start_mesh(cloud: PreparedCloud, kind: str) -> Mesh:
    """Build the start shape; auto takes the solid, but a thin shell where most of the solid would be guessed."""
    if kind == "sphere":
        return _sphere(cloud.points)
    if kind == "hull":
        return _hull(cloud.points)
    if kind == "shell":
        return _shell(cloud)
    solid = _solid(cloud)
    if kind == "auto" and _seen_share(solid, cloud) < LEAST_SEEN:
        log.info("the points enclose no solid: starting from a thin shell around them")
        return _shell(cloud)
    return solid


def _sphere(points: Float[Tensor, "points 3"]) -> Mesh:
    """Return the sphere around the box of the points."""
    sphere = ico_sphere(4).to(points.dtype)
    center = (points.amin(0) + points.amax(0)) / 2
    radius = (points - center).norm(dim=1).max()
    return sphere.replace(vertices=center + radius * sphere.vertices)


def _hull(points: Float[Tensor, "points 3"]) -> Mesh:
    """Return the convex hull, its faces turned outwards."""
    from scipy.spatial import ConvexHull

    hull = ConvexHull(points.numpy())
    faces = np.searchsorted(np.sort(hull.vertices), hull.simplices)
    vertices = points.numpy()[np.sort(hull.vertices)]
    a, b, c = vertices[faces].transpose(1, 0, 2)
    inward = (np.cross(b - a, c - a) * hull.equations[:, :3]).sum(1) < 0
    faces[inward] = faces[inward, ::-1]
    return Mesh(torch.from_numpy(vertices), torch.from_numpy(faces.astype(np.int64)))


def _solid(cloud: PreparedCloud) -> Mesh:
    """Return the surface of a solid, of any genus, that has the points on its skin.

    Given normals say which way is out, else estimated ones are made to agree with one another. Where nothing was
    seen the surface closes as it likes, within the convex hull.
    """
    normals = cloud.local.normals if cloud.normals is None else cloud.normals
    resolution = _resolution(cloud)
    oriented = orient_normals(
        cloud.points,
        normals,
        cloud.local.areas,
        trust_signs=cloud.normals is not None,
        resolution=min(resolution, 128),
    )
    mesh = poisson_surface(
        cloud.points,
        oriented,
        cloud.local.areas,
        resolution=resolution,
        reach=min(2 * cloud.spacing, MARGIN),
    )
    return _keep_supported(mesh, cloud.points)


def _shell(cloud: PreparedCloud) -> Mesh:
    """Return a thin closed shell around the points, of any genus."""
    mesh = shell_surface(cloud.points, min(1.6 * cloud.spacing, MARGIN), resolution=_resolution(cloud))
    return _keep_supported(mesh, cloud.points)


def _resolution(cloud: PreparedCloud) -> int:
    extent = float((cloud.points.amax(0) - cloud.points.amin(0)).max()) + 2 * MARGIN
    return int(np.clip(extent / cloud.spacing, 64, 192))


def _seen_share(mesh: Mesh, cloud: PreparedCloud) -> float:
    """Return the share of a surface within one and a half spacings of a point."""
    samples = sample_points_from_mesh(mesh, 10_000, generator=torch.Generator().manual_seed(0)).points
    distances = nearest(samples, cloud.points).distances
    return float((distances < (1.5 * cloud.spacing) ** 2).double().mean())


def _keep_supported(mesh: Mesh, points: Float[Tensor, "points 3"]) -> Mesh:
    part = connected_components(mesh.faces, len(mesh.vertices))[mesh.faces[:, 0]]
    nearest_part = part[closest_on_mesh(points, mesh.vertices, mesh.faces).face_ids]
    kept = torch.bincount(nearest_part, minlength=int(part.max()) + 1) >= LEAST_SHARE * len(points)
    if not bool(kept.any()):
        raise InputError("fit_mesh: found no closed surface near the points; try start='hull'")
    return mesh if bool(kept.all()) else keep_faces(mesh, kept[part])
