"""Open surfaces: closed ones, trimmed where there are no points."""

import numpy as np
import torch

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh, face_areas
from unrender.geometry.topology import connected_components, keep_faces
from unrender.kernels.nearest import nearest
from unrender.tasks.mesh.initial_mesh import keep_supported
from unrender.tasks.mesh.prepare_cloud import PreparedCloud

TRIM_DISTANCE = 1.3
"""Distance of the surface from the nearest point, in the spacing of the points there, up to which it is kept."""
MAX_HOLE = 30.0
"""Largest area without points that is kept within the surface, in squared spacings."""


def trim_unsupported(mesh: Mesh, cloud: PreparedCloud) -> Mesh:
    """Remove the faces of a mesh, in the frame of the cloud, that are far from all points; small holes stay filled."""
    squared, ids = nearest(mesh.vertices, cloud.points)
    spacing = cloud.local.areas.sqrt().clamp(min=cloud.spacing)[ids[:, 0]]
    is_near = (squared[:, 0].sqrt() <= TRIM_DISTANCE * spacing)[mesh.faces].all(-1)
    rest = mesh.faces[~is_near]
    if len(rest) == 0:
        return mesh
    labels = connected_components(rest, len(mesh.vertices))[rest[:, 0]]
    areas = np.bincount(labels.numpy(), face_areas(mesh)[~is_near].numpy())
    kept = is_near.clone()
    kept[~is_near] = torch.from_numpy(areas)[labels] <= MAX_HOLE * cloud.spacing**2
    if not bool(kept.any()):
        raise InputError("fit_mesh: no part of the surface is near the points; omit `open`")
    return keep_supported(keep_faces(mesh, kept), cloud.points)
