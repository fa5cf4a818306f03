"""Closed meshes to begin a fit with, from the points alone."""

import logging

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.poisson import orient_normals, poisson_surface
from unrender.geometry.shapes import ico_sphere
from unrender.geometry.topology import connected_components, keep_faces
from unrender.kernels.closest_on_mesh import closest_on_mesh
from unrender.tasks._prepare_cloud import PreparedCloud

LEAST_SHARE = 0.01
log = logging.getLogger("unrender")


def start_mesh(cloud: PreparedCloud, kind: str) -> Mesh:
    """Build the start shape: auto, shell, hull or sphere."""
    if kind == "sphere":
        return _sphere(cloud.points)
    if kind == "hull":
        return _hull(cloud.points)
    return _shell(cloud)


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


def _shell(cloud: PreparedCloud) -> Mesh:
    """Return a closed surface of any genus near the points: the level set of a smooth indicator of the solid.

    Given normals say which way is out, else estimated ones are made to agree with one another. Connected parts
    of the surface near less than 1 % of the points are dropped.
    """
    points, local = cloud.points, cloud.local
    extent = float((points.amax(0) - points.amin(0)).max()) + 0.3
    resolution = int(np.clip(extent / cloud.spacing, 48, 192))
    normals = local.normals if cloud.normals is None else cloud.normals
    oriented = orient_normals(points, normals, local.areas, trust_signs=cloud.normals is not None)
    mesh = poisson_surface(points, oriented, local.areas, resolution=resolution)
    return _keep_supported(mesh, points)


def _keep_supported(mesh: Mesh, points: Float[Tensor, "points 3"]) -> Mesh:
    part = connected_components(mesh.faces, len(mesh.vertices))[mesh.faces[:, 0]]
    nearest = part[closest_on_mesh(points, mesh.vertices, mesh.faces).face_ids]
    kept = torch.bincount(nearest, minlength=int(part.max()) + 1) >= LEAST_SHARE * len(points)
    if not bool(kept.any()):
        raise InputError("fit_mesh: found no closed surface near the points; try start='hull'")
    return mesh if bool(kept.all()) else keep_faces(mesh, kept[part])
