"""How faces hang together: edges, hinges, components, and what follows for the surface.

Edge k of a face joins its corners k and k + 1. A hinge is an edge with two of its faces; an edge at which n
faces meet makes n (n − 1) / 2 hinges.
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
    """The edges of faces; `topology` builds it once for each faces tensor."""

    edges: Int[Tensor, "edges 2"]
    """Each edge once, lower vertex first, sorted."""
    face_edges: Int[Tensor, "faces 3"]
    edge_faces: Int[Tensor, " edges"]
    """How many faces meet at each edge."""
    forward: Bool[Tensor, "faces 3"]
    """Whether a face passes its edge from the lower vertex to the upper one."""

    @cached_property
    def hinge_sides(self) -> Tensor:
        """The two places in flattened `face_edges` (face · 3 + k) where each hinge's edge stands: [hinges 2]."""
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
        """1 where the two faces of a hinge turn alike, else −1: [hinges]."""
        one, two = self.forward.flatten()[self.hinge_sides].unbind(1)
        return torch.where(one == two, -1, 1)


_remembered: MutableMapping[Tensor, tuple[int, Topology]] = WeakIdKeyDictionary()


@checked
def topology(faces: Int[Tensor, "faces 3"]) -> Topology:
    """Find the edges of faces; remembered as long as the tensor lives and is not changed in place."""
    if faces.is_inference():  # torch keeps no version of these, so a change would pass unseen
        return _find_edges(faces)
    if faces not in _remembered or _remembered[faces][0] != faces._version:
        _remembered[faces] = faces._version, _find_edges(faces)
    return _remembered[faces][1]


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
    """Find the connected parts of a surface, and give every vertex the number of its part.

    A vertex without faces is a part of its own.
    """
    return _label(topology(faces).edges, num_vertices).to(faces.device)


def keep_faces(mesh: Mesh, keep: Bool[Tensor, " faces"]) -> Mesh:
    """Drop the other faces, and vertices that no face uses any more.

    Differentiable in: vertices and colors.
    """
    used, faces = torch.unique(mesh.faces[keep], return_inverse=True)
    colors = None if mesh.vertex_colors is None else mesh.vertex_colors.index_select(0, used)
    return Mesh(mesh.vertices.index_select(-2, used), faces, colors)


def keep_largest_component(mesh: Mesh) -> Mesh:
    """Keep the connected part with the most faces.

    Differentiable in: vertices and colors.
    """
    part = connected_components(mesh.faces, mesh.vertices.shape[-2])[mesh.faces[:, 0].long()]
    return keep_faces(mesh, part == part.bincount().argmax() if len(part) else part.bool())


def is_watertight(mesh: Mesh) -> bool:
    """Tell whether every edge joins exactly two faces, which pass it in opposite directions."""
    edges = topology(mesh.faces)
    turns = torch.bincount(edges.face_edges.flatten(), edges.forward.flatten().double())
    return len(mesh.faces) > 0 and bool((edges.edge_faces == 2).all() and (turns == 1).all())


def is_manifold(mesh: Mesh) -> bool:
    """Tell whether at most two faces meet at every edge, and the faces around every vertex form one fan."""
    edges = topology(mesh.faces)
    if len(edges.edges) and int(edges.edge_faces.max()) > 2:
        return False
    corner = torch.arange(mesh.faces.numel(), device=mesh.faces.device).view(-1, 3)
    following = corner.roll(-1, 1)
    lower = torch.where(edges.forward, corner, following).flatten()[edges.hinge_sides]
    upper = torch.where(edges.forward, following, corner).flatten()[edges.hinge_sides]
    fans = _label(torch.cat([lower, upper]), mesh.faces.numel())
    return len(torch.unique(fans)) == len(torch.unique(mesh.faces))


def euler_characteristic(mesh: Mesh) -> int:
    """Count vertices − edges + faces, over the vertices that faces use."""
    return len(torch.unique(mesh.faces)) - len(topology(mesh.faces).edges) + len(mesh.faces)


def genus(mesh: Mesh) -> int:
    """Count the handles of a closed manifold, over all its parts: Σ (2 − χ) / 2."""
    if not (is_watertight(mesh) and is_manifold(mesh)):
        raise InputError(
            "genus: `mesh` should be a closed manifold; `is_watertight` and `is_manifold` tell why not"
        )
    part = connected_components(mesh.faces, mesh.vertices.shape[-2])[mesh.faces[:, 0].long()]
    return len(torch.unique(part)) - euler_characteristic(mesh) // 2


def _label(pairs: Tensor, size: int) -> Tensor:
    """Find the connected components of the graph with these edges."""
    start, end = pairs.cpu().numpy().T
    graph = coo_array((np.ones(len(pairs), bool), (start, end)), shape=(size, size))
    return torch.from_numpy(_graph_components(graph, directed=False)[1]).long()
