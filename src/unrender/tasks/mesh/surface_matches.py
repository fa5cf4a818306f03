"""Correspondences of points and a surface that deforms: closest points, with robust weights.

Points are matched with the surface, and not the reverse: parts of the surface that were not scanned attract nothing. A
match has weight 0 if it is far away, if the normals disagree, or if it is on the boundary of an open surface, behind
which points may continue.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from unrender.geometry.mesh import Mesh, face_normals, vertex_normals
from unrender.geometry.topology import topology
from unrender.kernels.closest_on_mesh import closest_on_mesh, index_faces
from unrender.kernels.nearest import PointIndex, index_points
from unrender.tasks.mesh.gauss_newton import Matrix, interpolation_matrix
from unrender.tasks.mesh.shape_target import ShapeTarget

Array = npt.NDArray[np.float64]
MIN_NORMAL_AGREEMENT = 0.5
"""Minimum cosine between the normals of a match."""
MIN_SCALE = 5e-4
"""Smallest scale of the robust loss, relative to the cloud."""
ON_EDGE = 1e-6
"""Barycentric coordinate up to which a position is on the opposite edge."""


class Surface:
    """The topology of a mesh whose vertices move: boundary, and a search tree that is built once."""

    def __init__(self, mesh: Mesh) -> None:
        """Find the boundary, and build the search tree."""
        edges = topology(mesh.faces)
        self.faces = mesh.faces
        is_boundary = edges.edge_faces == 1
        self.is_boundary_side = is_boundary[edges.face_edges]
        self.is_boundary_vertex = torch.zeros(len(mesh.vertices), dtype=torch.bool)
        self.is_boundary_vertex[edges.edges[is_boundary].flatten()] = True
        self._order = index_faces(mesh.vertices, mesh.faces)
        self._corner = torch.zeros(len(mesh.vertices), dtype=torch.int64)
        self._corner[mesh.faces.flatten()] = torch.arange(mesh.faces.numel())  # any one of each vertex
        self._used = mesh.faces.unique()

    def closest(self, points: Tensor | PointIndex, vertices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the face and the barycentric coordinates of the position that is closest to each point."""
        _, face_ids, barycentrics = closest_on_mesh(points, vertices, self.faces, face_order=self._order)
        return face_ids, barycentrics

    def similar(
        self, points: Tensor, normals: Tensor, vertices: Tensor, normal_weight: float
    ) -> tuple[Tensor, Tensor]:
        """Return the vertex nearest to each point in position and normal, as a face and barycentric coordinates."""
        own = vertex_normals(Mesh(vertices, self.faces))
        tree = cKDTree(torch.cat([vertices, normal_weight * own], 1)[self._used].numpy())
        _, found = tree.query(torch.cat([points, normal_weight * normals], 1).numpy())
        corner = self._corner[self._used[torch.from_numpy(np.asarray(found))]]
        return corner // 3, torch.nn.functional.one_hot(corner % 3, 3).to(vertices)

    def is_on_boundary(self, face_ids: Tensor, barycentrics: Tensor) -> Tensor:
        """Say which positions on the surface are on its boundary."""
        opposite = barycentrics.roll(-2, 1)  # of edge k: the coordinate of corner k + 2
        on_side = (self.is_boundary_side[face_ids] & (opposite <= ON_EDGE)).any(1)
        corner = barycentrics.argmax(1, keepdim=True)
        vertex = self.faces[face_ids].gather(1, corner)[:, 0]
        on_corner = self.is_boundary_vertex[vertex] & (barycentrics.amax(1) >= 1 - ON_EDGE)
        return on_side | on_corner


class SurfaceMatches(NamedTuple):
    """The positions on a surface that points are attached to."""

    interpolation: Matrix
    """Interpolates the positions from the vertices: [points vertices]."""
    normals: Array
    """Unit normals of the surface at the positions."""
    offsets: Array
    """Position minus point."""
    residuals: Array
    """Offset along the normal."""
    weights: Array
    """Weights of the robust loss in [0, 1]."""
    noise: float
    """Standard deviation of the residuals, from their median."""

    @property
    def rms(self) -> float:
        """Weighted root mean square of the residuals."""
        squared = (self.weights * self.residuals**2).sum() / max(float(self.weights.sum()), 1e-12)
        return float(np.sqrt(squared))

    def cost(self, scale: float) -> float:
        """Return the mean of d² / (d² + scale²) for the distances d; where normals disagree, at least 0.2."""
        squared = (self.offsets**2).sum(1)
        squared = np.where(self.weights > 0, squared, np.maximum(squared, scale**2 / 4))
        return float((squared / (squared + scale**2)).mean())


class TargetPoints(NamedTuple):
    """Some points of a target, with a search tree."""

    tree: PointIndex
    normals: Tensor


def select_points(target: ShapeTarget, count: int) -> TargetPoints:
    """Select points of a target evenly in their order, which is random or that of the scan."""
    total = len(target.points)
    count = min(count, total)
    rows = torch.arange(count) * total // count
    return TargetPoints(index_points(target.points[rows]), target.normals[rows])


def match_surface(
    surface: Surface,
    vertices: Tensor,
    some: TargetPoints,
    max_scale: float,
    min_scale: float = MIN_SCALE,
    normal_weight: float = 0.0,
) -> SurfaceMatches:
    """Find the closest positions on the surface, and weigh them by the loss of Geman and McClure (1985).

    The scale of the loss is three standard deviations of the residuals, within the given limits: from wide to narrow,
    parts that are far away at first are not taken for outliers. With a weight of the normals, points are matched with
    vertices that are similar in position and normal.
    """
    face_ids, barycentrics = surface.closest(some.tree, vertices)
    if normal_weight:
        nearby = face_normals(Mesh(vertices, surface.faces))[face_ids]
        flip = (nearby * some.normals).sum(1, keepdim=True) < 0
        normals = torch.where(flip, -some.normals, some.normals)
        face_ids, barycentrics = surface.similar(some.tree.points, normals, vertices, normal_weight)
    mesh = Mesh(vertices, surface.faces)
    corners, weights = mesh.faces[face_ids], barycentrics[..., None]
    smooth = (vertex_normals(mesh)[corners] * weights).sum(1)
    lengths = torch.linalg.vector_norm(smooth, dim=1, keepdim=True)
    flat = face_normals(mesh)[face_ids]
    normals = torch.where(lengths > 0.1, smooth / lengths.clamp_min(0.1), flat)
    offsets = (vertices[corners] * weights).sum(1) - some.tree.points
    residuals = (offsets * normals).sum(1)
    agreement = (normals * some.normals).sum(1).abs()
    usable = (agreement > MIN_NORMAL_AGREEMENT) & ~surface.is_on_boundary(face_ids, barycentrics)
    distances = torch.linalg.vector_norm(offsets, dim=1)
    chosen = distances[usable] if bool(usable.any()) else distances
    noise = max(1.4826 * float(np.median(chosen.numpy())), MIN_SCALE / 3)
    scale = min(max(3 * noise, min_scale), max_scale)
    closeness = 1 / (1 + (distances / scale).square())
    return SurfaceMatches(
        interpolation_matrix(mesh, face_ids, barycentrics),
        normals.numpy(),
        offsets.numpy(),
        residuals.numpy(),
        torch.where(usable, closeness.square(), 0).numpy(),
        min(noise, max_scale / 3),
    )
