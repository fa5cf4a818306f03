"""Vertex colors from photos: the light alternative to a texture."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.kernels.scatter_sum import scatter_sum
from unrender.tasks.surface.photo_views import PhotoView
from unrender.tasks.surface.project_photos import (
    PointColors,
    estimate_exposures,
    project_photos,
    vertices_of,
)


class BakedVertexColors(NamedTuple):
    """A mesh with vertex colors from photos."""

    mesh: Mesh
    num_unobserved: int
    """Vertices that no photo shows; their colors are those of their neighbors."""


def bake_vertex_colors(
    mesh: Mesh, views: Sequence[PhotoView], *, exposure: bool = False
) -> BakedVertexColors:
    """Compute the color of each vertex from the photos in which it is visible.

    With `exposure`, differences in brightness and white balance between the photos are compensated. Vertices that no
    photo shows get the colors of their neighbors.
    Raises InputError if no photo shows any vertex.
    Differentiable in: nothing.
    """
    check_views("bake_vertex_colors", mesh, views)
    surface = vertices_of(mesh)
    exposures = estimate_exposures(mesh, surface, views) if exposure else None
    found = project_photos(mesh, surface, views, exposures)
    colors = fill_unobserved(mesh, check_observed("bake_vertex_colors", found))
    return BakedVertexColors(mesh.replace(vertex_colors=colors), int((~found.observed).sum()))


def check_views(function: str, mesh: Mesh, views: Sequence[PhotoView]) -> None:
    """Raise InputError without photos, and for a mesh that is none, or has no faces."""
    if not views:
        raise InputError(f"{function}: `views` should hold at least one photo, got none")
    if mesh.vertices.dim() != 2 or len(mesh.faces) == 0:
        raise InputError(
            f"{function}: `mesh` should be a single mesh with faces, got {len(mesh.faces)} faces and vertices "
            f"{list(mesh.vertices.shape)}"
        )


def check_observed(function: str, found: PointColors) -> PointColors:
    """Raise InputError if no photo shows the mesh."""
    if not bool(found.observed.any()):
        raise InputError(
            f"{function}: no photo shows the mesh; check that mesh and cameras have the same units and axes, and that "
            "its faces are counter-clockwise seen from outside"
        )
    return found


def fill_unobserved(mesh: Mesh, found: PointColors) -> Float[Tensor, "vertices 3"]:
    """Return vertex colors in which unobserved vertices have the mean color of their neighbors, ring by ring.

    Components of the mesh that no photo shows get the mean of all colors.
    """
    corners = torch.cat([mesh.faces, mesh.faces.flip(1)]).long()
    edges = torch.stack([corners, corners.roll(-1, 1)], -1).reshape(-1, 2)
    colors, known = found.colors.clone(), found.observed.clone()
    for _ in range(len(colors)):
        edges = edges[~known[edges[:, 0]]]
        start, end = edges[known[edges[:, 1]]].T
        if len(start) == 0:
            break
        sums = mean_by_index(colors[end], start, len(colors))
        ring: Bool[Tensor, " vertices"] = torch.zeros_like(known)
        ring[start] = True
        colors, known = torch.where(ring[:, None], sums, colors), known | ring
    return torch.where(known[:, None], colors, colors[found.observed].mean(0))


def mean_by_index(rows: Tensor, index: Tensor, size: int) -> Tensor:
    """Return the mean of the rows that share an index; zero where there are none."""
    columns = torch.cat([rows, torch.ones_like(rows[:, :1])], 1).T.contiguous()
    sums = scatter_sum(columns, index, size)
    return (sums[:3] / sums[3].clamp(min=1)).T
