"""The surface in a field of voxels, as a mesh."""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unrender.errors import InputError
from unrender.fields.voxels import SparseVoxels
from unrender.geometry.mesh import Mesh, vertex_normals
from unrender.geometry.points import PointCloud

AT_ONCE = 65_536
"""Vertices whose colors are looked up."""
FAR_INSIDE = 4.0
"""How much the log of the density is above the level where no voxel is left because none could be seen."""


def extract_surface(field: SparseVoxels, *, opacity: float = 0.5) -> Mesh:
    """Return the surface on which matter of one voxel's thickness takes so much of the light, with colors.

    By marching cubes on the log of the density; in contracted space a voxel is one of the inner cube. Colors are those
    seen from straight above the surface. Hollows that no ray could reach count as full. Faces are counterclockwise
    seen from outside; vertices are in world units.
    """
    if not 0 < opacity < 1:
        raise InputError(f"extract_surface: `opacity` should be above 0 and below 1, got {opacity}")
    level = math.log(-math.log1p(-opacity) / field.voxel_size)
    vertices, faces = _marching_cubes(_dense(field, level))
    places = torch.from_numpy(vertices)
    mesh = Mesh(_to_world(field, places).float(), torch.from_numpy(faces.astype(np.int64)))
    normals = vertex_normals(mesh)
    colors = [
        field(points, -normal)[1].detach()
        for points, normal in zip(mesh.vertices.split(AT_ONCE), normals.split(AT_ONCE), strict=True)
    ]
    return mesh.replace(vertex_colors=torch.cat(colors).clamp(0, 1))


def cloud_of_surface(mesh: Mesh) -> PointCloud:
    """Return the vertices of a mesh with their normals and colors."""
    return PointCloud(mesh.vertices, vertex_normals(mesh), mesh.vertex_colors)


def _dense(field: SparseVoxels, level: float) -> NDArray[np.float32]:
    """Spread the log of the density, less the level, over the whole grid: empty outside, full in closed hollows."""
    from scipy.ndimage import binary_fill_holes

    x, y, z = (side + 1 for side in field.table.shape)
    places = field.table.corner_places.long().unbind(-1)
    known = torch.zeros(x, y, z, dtype=torch.bool)
    known[places] = True
    hollow = torch.from_numpy(binary_fill_holes(known.numpy())) & ~known
    values = torch.full((x, y, z), -FAR_INSIDE)
    values[hollow] = FAR_INSIDE
    values[places] = field.log_density.detach().float() - level
    return np.pad(values.numpy(), 1, constant_values=-FAR_INSIDE)


def _marching_cubes(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    from skimage.measure import marching_cubes

    if not values.max() > 0:
        raise InputError("extract_surface: nothing in the field is as opaque as that; lower `opacity`")
    vertices, faces, _, _ = marching_cubes(values, 0.0, gradient_direction="ascent")
    return vertices - 1, faces


def _to_world(field: SparseVoxels, places: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
    if not field.contracted:
        return field.middle + field.unit * places
    bent = places * (4 / field.table.shape[0]) - 2
    r = bent.abs().amax(-1, keepdim=True)
    straight = torch.where(r > 1, bent / (r * (2 - r).clamp(min=1 / field.table.shape[0])), bent)
    return field.middle + field.unit * straight
