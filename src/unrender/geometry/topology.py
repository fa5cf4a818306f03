"""Mesh topology: edges, pairs of adjacent faces, connected components, manifold tests and genus.

Edge k of a face joins its corners k and k + 1. A hinge is a pair of faces that share an edge; an edge with n faces has
n (n − 1) / 2 hinges.
"""

from collections.abc import MutableMapping
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as _graph_components
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from unrender._checked import checked
from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh


class Topology(TensorStruct):
    """The edges of a mesh; `topology` computes and caches it for each faces tensor."""

    edges: Int[Tensor, "edges 2"]
    """Unique edges, lower vertex first, sorted."""
    face_edges: Int[Tensor, "faces 3"]
    edge_faces: Int[Tensor, " edges"]
    """Number of faces at each edge."""
    forward: Bool[Tensor, "faces 3"]
    """Whether a face traverses its edge from the lower vertex to the upper one."""

    @cached_property
    def num_vertices(self) -> int:
        """Number of vertices that faces use."""
        return len(torch.unique(self.edges))

    @cached_property
    def hinge_sides(self) -> Tensor:
        """The two half-edges of each hinge, as indices face · 3 + k into the flattened `face_edges`: [hinges 2]."""
        edge, side = self.face_edges.flatten().sort(stable=True)
        pairs = [torch.empty(2, 0, dtype=side.dtype, device=side.device)]
        for step in range(1, int(self.edge_faces.max()) if len(edge) else 0):
            same = edge[step:] == edge[:-step]
            pairs.append(torch.stack([side[:-step][same], side[step:][same]]))
        return torch.cat(pairs, -1).mT

    @cached_property
    def hinge_faces(self) -> Tensor:
        """The two faces of each hinge: [hinges 2]."""
        return self.hinge_sides // 3

    @cached_property
    def hinge_signs(self) -> Tensor:
        """1 where the two faces of a hinge have consistent winding, else −1: [hinges]."""
        one, two = self.forward.flatten()[self.hinge_sides].unbind(1)
        return torch.where(one == two, -1, 1)


_cache: MutableMapping[Tensor, tuple[int, Topology]] = WeakIdKeyDictionary()


@checked
def topology(faces: Int[Tensor, "faces 3"]) -> Topology:
    """Compute the edges of faces; cached for the lifetime of the tensor unless it is modified in place."""
    if faces.is_inference():  # inference tensors have no version counter to detect changes with
        return _find_edges(faces)
    if faces not in _cache or _cache[faces][0] != faces._version:
        _cache[faces] = faces._version, _find_edges(faces)
    return _cache[faces][1]


def _find_edges(faces: Tensor) -> Topology:
    start, end = faces.long(), faces.long().roll(-1, 1)
    size = int(faces.max()) + 1 if len(faces) else 1
    key, face_edges, count = torch.unique(
        torch.minimum(start, end) * size + torch.maximum(start, end), return_inverse=True, return_counts=True
    )
    edges = torch.stack([key // size, key % size]).mT
    return Topology(edges, face_edges, count, start < end)


@checked
def connected_components(faces: Int[Tensor, "faces 3"], num_vertices: int) -> Int[Tensor, " vertices"]:
    """Label every vertex with the index of its connected component; an unreferenced vertex is its own component."""
    return _label(topology(faces).edges, num_vertices).to(faces.device)


def keep_faces(mesh: Mesh, keep: Bool[Tensor, " faces"]) -> Mesh:
    """Remove all other faces, and vertices that become unreferenced.

    Differentiable in: vertices and colors.
    """
    used, faces = torch.unique(mesh.faces[keep], return_inverse=True)
    colors = None if mesh.vertex_colors is None else mesh.vertex_colors.index_select(0, used)
    return Mesh(mesh.vertices.index_select(-2, used), faces, colors)


def keep_largest_component(mesh: Mesh) -> Mesh:
    """Keep the connected component with the most faces; use it to remove small fragments of a reconstruction.

    Differentiable in: vertices and colors.
    """
    labels = connected_components(mesh.faces, mesh.vertices.shape[-2])[mesh.faces[:, 0].long()]
    return keep_faces(mesh, labels == labels.bincount().argmax() if len(labels) else labels.bool())


def is_watertight(mesh: Mesh) -> bool:
    """Return whether the mesh is closed: every edge has exactly two faces, with consistent winding."""
    edges = topology(mesh.faces)
    num_forward = torch.bincount(edges.face_edges.flatten(), edges.forward.flatten().double())
    return len(mesh.faces) > 0 and bool((edges.edge_faces == 2).all() and (num_forward == 1).all())


def is_manifold(mesh: Mesh) -> bool:
    """Return whether every edge has at most two faces, and the faces around every vertex form a single fan."""
    edges = topology(mesh.faces)
    if len(edges.edges) and int(edges.edge_faces.max()) > 2:
        return False
    corner = torch.arange(mesh.faces.numel(), device=mesh.faces.device).view(-1, 3)
    following = corner.roll(-1, 1)
    lower = torch.where(edges.forward, corner, following).flatten()[edges.hinge_sides]
    upper = torch.where(edges.forward, following, corner).flatten()[edges.hinge_sides]
    fans = _label(torch.cat([lower, upper]), mesh.faces.numel())
    return len(torch.unique(fans)) == len(torch.unique(mesh.faces))


def separate_fans(mesh: Mesh) -> Mesh:
    """Duplicate the vertices at which several fans of faces meet, and remove unreferenced ones.

    Surfaces that touch at a vertex or along an edge are separated. The result is a manifold unless both ends of an edge
    with more than two faces have a single fan.
    Differentiable in: vertices and colors.
    """
    edges = topology(mesh.faces)
    pairs = edges.hinge_sides
    pairs = pairs[edges.edge_faces[edges.face_edges.flatten()[pairs[:, 0]]] == 2]
    corner = torch.arange(mesh.faces.numel(), device=mesh.faces.device).view(-1, 3)
    following = corner.roll(-1, 1)
    lower = torch.where(edges.forward, corner, following).flatten()[pairs]
    upper = torch.where(edges.forward, following, corner).flatten()[pairs]
    fans = _label(torch.cat([lower, upper]), mesh.faces.numel()).to(mesh.faces.device)
    vertex_of_fan = torch.empty(int(fans.max()) + 1 if len(fans) else 0, dtype=torch.long, device=fans.device)
    vertex_of_fan[fans] = mesh.faces.flatten().long()
    colors = None if mesh.vertex_colors is None else mesh.vertex_colors[vertex_of_fan]
    faces = fans.view(-1, 3).to(mesh.faces.dtype)
    return Mesh(mesh.vertices.index_select(-2, vertex_of_fan), faces, colors)


def euler_characteristic(mesh: Mesh) -> int:
    """Compute vertices − edges + faces; unreferenced vertices do not count."""
    return len(torch.unique(mesh.faces)) - len(topology(mesh.faces).edges) + len(mesh.faces)


def genus(mesh: Mesh) -> int:
    """Compute the genus (number of handles) of a closed manifold: Σ (2 − χ) / 2 over its connected components.

    Raises InputError if the mesh is not a closed manifold.
    """
    if not (is_watertight(mesh) and is_manifold(mesh)):
        raise InputError(
            "genus: `mesh` should be a closed manifold; check it with `is_watertight` and `is_manifold`"
        )
    labels = connected_components(mesh.faces, mesh.vertices.shape[-2])[mesh.faces[:, 0].long()]
    return len(torch.unique(labels)) - euler_characteristic(mesh) // 2


def _label(pairs: Tensor, size: int) -> Tensor:
    """Find the connected components of the graph with these edges."""
    start, end = pairs.cpu().numpy().T
    graph = coo_array((np.ones(len(pairs), bool), (start, end)), shape=(size, size))
    return torch.from_numpy(_graph_components(graph, directed=False)[1]).long()
