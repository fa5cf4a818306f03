"""Distances between point clouds and meshes, in both directions."""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.compat.pytorch3d.structures.pointclouds import Pointclouds
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.topology import topology
from unrender.kernels.closest_on_mesh import closest_on_mesh, reference
from unrender.kernels.nearest import index_points, nearest

FIRST_CANDIDATES = 8
"""Initial number of candidate points per face; doubled where the nearest may not be among them."""


def point_mesh_face_distance(meshes: Meshes, pcls: Pointclouds, min_triangle_area: float = 5e-3) -> Tensor:
    """Average squared distances, from points to the surface plus from faces to the point cloud, over the batch.

    Exact for faces of any size: `min_triangle_area`, below which PyTorch3D measures to the edges only, is not used.
    """
    _check("point_mesh_face_distance", meshes, pcls)
    losses = []
    for mesh, points in zip(meshes.core(), pcls.points_list(), strict=True):
        to_surface = closest_on_mesh(points, mesh.vertices, mesh.faces).squared_distances
        losses.append(to_surface.mean() + _faces_to_points(mesh, points).mean())
    return torch.stack(losses).sum() / len(meshes)


def point_mesh_edge_distance(meshes: Meshes, pcls: Pointclouds) -> Tensor:
    """Average squared distances, from points to the edges plus from edges to the point cloud, over the batch."""
    _check("point_mesh_edge_distance", meshes, pcls)
    losses = []
    for mesh, points in zip(meshes.core(), pcls.points_list(), strict=True):
        edges = topology(mesh.faces).edges
        collapsed = torch.cat([edges, edges[:, 1:]], 1)  # faces without area are their edge
        to_edges = closest_on_mesh(points, mesh.vertices, collapsed).squared_distances
        losses.append(to_edges.mean() + _faces_to_points(Mesh(mesh.vertices, collapsed), points).mean())
    return torch.stack(losses).sum() / len(meshes)


def _check(function: str, meshes: Meshes, clouds: Pointclouds) -> None:
    """Raise InputError for batches that differ in size, or are empty, and for meshes and clouds without elements."""
    if len(meshes) != len(clouds) or not len(meshes):
        raise InputError(
            f"{function}: {len(meshes)} meshes, but {len(clouds)} clouds; there should be one each"
        )
    for kind, counts in (("faces", meshes.num_faces_per_mesh()), ("points", clouds.num_points_per_cloud())):
        if not bool(counts.all()):
            first = int((counts == 0).nonzero()[0])
            raise InputError(f"{function}: pair {first} has no {kind}: there is no distance to measure")


def _faces_to_points(mesh: Mesh, points: Tensor) -> Tensor:
    """Return the squared distance from each face to the point nearest to it.

    A point that is nearer to a face than c, the one nearest to its center, is at most |c − center| + radius away from
    the center, so only points within this distance are searched.
    """
    corners = mesh.vertices[mesh.faces]
    chosen = _nearest_points(corners.detach(), points.detach())
    whole = torch.tensor([[0, 1, 2]], device=points.device)
    squared, _, _ = reference.forward(points[chosen][:, None], corners, whole)
    return squared[:, 0]


def _nearest_points(corners: Tensor, points: Tensor) -> Tensor:
    centers, index = corners.mean(1), index_points(points)
    radii = (corners - centers[:, None]).norm(dim=-1).amax(1)
    whole = torch.tensor([[0, 1, 2]], device=points.device)
    chosen = torch.empty(len(corners), dtype=torch.int64, device=points.device)
    left, count = torch.arange(len(corners), device=points.device), min(FIRST_CANDIDATES, len(points))
    while len(left):
        found = nearest(centers[left], index, count)
        distances = found.distances.sqrt()
        squared, _, _ = reference.forward(points[found.ids.long()], corners[left], whole)
        chosen[left] = found.ids.long().gather(1, squared.argmin(1, keepdim=True))[:, 0]
        known = (distances[:, -1] > distances[:, 0] + radii[left]) | (count == len(points))
        left, count = left[~known], min(2 * count, len(points))
    return chosen


__getattr__ = refuse_unknown(__name__)
