"""Isotropic remeshing: the same surface in triangles of a chosen size.

Botsch & Kobbelt, "A Remeshing Approach to Multiresolution Modeling" (SGP 2004): split long edges, collapse short
ones, flip towards valence 6, move vertices in their tangent planes. Each step changes many places at once, so far
apart that the outcome is that of one change after the other. A closed manifold stays one, of the same genus.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

LONG, SHORT = 4 / 3, 4 / 5
"""Edges beyond these parts of the target length are split or collapsed (section 4)."""
MAX_TURN = 0.5
"""Cosine of the angle by which one change may turn a face."""
AROUND = 0.2
"""How much of the neighbouring area vectors helps to say where a face points: slivers point anywhere."""
FEW = 1e-3
"""Rounds end when they change fewer than this part of the vertices."""
MAX_FACES = 20_000_000
"""More than this takes minutes and tens of gigabytes, and is a wrong unit more often than a wish."""


@checked
def remesh_isotropic(
    mesh: Mesh, edge_length: float | Float[Tensor, " vertices"], iterations: int = 5
) -> Mesh:
    """Rebuild a surface with edges near `edge_length` (world units; one number, or one for each vertex).

    Open boundaries are split, otherwise kept. Colors come along.
    Differentiable in: nothing; the result is a new surface.
    """
    surface = _surface(mesh, edge_length)
    for _ in range(iterations if len(mesh.faces) else 0):
        for step in (_split, _collapse, _flip, _relax):
            surface = step(surface)
    return _mesh(surface, mesh)


@dataclass(frozen=True)
class _Surface:
    points: Floats
    faces: Ints
    values: Floats
    """What each vertex carries: its target edge length, then its colors."""

    def target(self, a: Ints, b: Ints) -> Floats:
        """Target length between two vertices."""
        length: Floats = self.values[:, 0]
        return np.add(length[a], length[b]) / 2

    def lengths(self, a: Ints, b: Ints) -> Floats:
        return _norm(self.points[a] - self.points[b])

    def area_vectors(self) -> Floats:
        return _area_vectors(self.points, *self.faces.T)


@dataclass(frozen=True)
class _Edges:
    """Every edge (a, b) once; an `inner` edge lies between the faces `sides`, which are (a, b, c) and (b, a, d)."""

    keys: Ints
    ends: tuple[Ints, Ints]
    wings: tuple[Ints, Ints]
    sides: tuple[Ints, Ints]
    inner: Flags
    face_edges: Ints
    valence: Ints
    fixed: Flags
    """Vertices at open or tangled edges."""

    def exist(self, a: Ints, b: Ints) -> Flags:
        """Tell which pairs of vertices are edges."""
        keys = np.minimum(a, b) * len(self.valence) + np.maximum(a, b)
        found = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        return np.asarray(self.keys[found] == keys)


def _edges(faces: Ints, size: int) -> _Edges:
    start, end, across = faces.ravel(), faces[:, [1, 2, 0]].ravel(), faces[:, [2, 0, 1]].ravel()
    low, high = np.minimum(start, end), np.maximum(start, end)
    sides = _order(high, size)
    sides = sides[_order(low[sides], size)]
    keys = low[sides] * size + high[sides]
    first = np.flatnonzero(np.r_[len(keys) > 0, keys[1:] != keys[:-1]])
    count = np.diff(np.r_[first, len(keys)])
    one, two = sides[first], sides[np.minimum(first + 1, len(keys) - 1)]
    a, b = start[one], end[one]
    inner = (count == 2) & (a == end[two]) & (a != b)
    face_edges = np.empty(len(keys), np.int64)
    face_edges[sides] = np.repeat(np.arange(len(first)), count)
    fixed = np.zeros(size, bool)
    fixed[a[~inner]] = fixed[b[~inner]] = True
    valence = np.bincount(a, minlength=size) + np.bincount(b, minlength=size)
    wings, beside = (across[one], across[two]), (one // 3, two // 3)
    return _Edges(keys[first], (a, b), wings, beside, inner, face_edges.reshape(-1, 3), valence, fixed)


def _split(surface: _Surface) -> _Surface:
    """Cut long edges at their midpoints, and the faces at one, two or three of them, until none is long."""
    while True:
        size = len(surface.points)
        edges = _edges(surface.faces, size)
        long = surface.lengths(*edges.ends) > LONG * surface.target(*edges.ends)
        if not long.any():
            return surface
        middle = np.full(len(long), -1)
        middle[long] = np.arange(size, size + long.sum())
        a, b = (ends[long] for ends in edges.ends)
        surface = replace(
            surface,
            points=np.concatenate([surface.points, (surface.points[a] + surface.points[b]) / 2]),
            values=np.concatenate([surface.values, (surface.values[a] + surface.values[b]) / 2]),
        )
        surface = replace(surface, faces=_cut_faces(surface, middle[edges.face_edges]))


def _cut_faces(surface: _Surface, middle: Ints) -> Ints:
    """Replace faces by two, three or four, where `middle` names the new vertex on an edge, or −1."""
    number = (middle >= 0).sum(1)
    # turn each face so that a single cut lies on edge 0, and a single whole edge is edge 2
    lead = np.where(number == 2, (middle < 0).argmax(1) + 1, (middle >= 0).argmax(1))
    turn = (lead[:, None] + np.arange(3)) % 3
    (a, b, c), (ab, bc, ca) = (np.take_along_axis(x, turn, 1).T for x in (surface.faces, middle))
    shorter = surface.lengths(a, bc) < surface.lengths(ab, c)
    two = number == 2
    patterns = [
        (number == 0, [(a, b, c)]),
        (number == 1, [(a, ab, c), (ab, b, c)]),
        (two, [(ab, b, bc)]),
        (two & shorter, [(a, ab, bc), (a, bc, c)]),
        (two & ~shorter, [(a, ab, c), (ab, bc, c)]),
        (number == 3, [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]),
    ]
    return np.concatenate([np.stack(face, 1)[where] for where, parts in patterns for face in parts])


def _collapse(surface: _Surface) -> _Surface:
    """Move one end of short edges onto the other, in rounds of collapses that do not touch each other."""
    size = len(surface.points)
    stuck = np.zeros(size, bool)
    while True:
        edges = _edges(surface.faces, size)
        gone, kept = _short_edges(surface, edges, stuck)
        good = _may_collapse(surface, edges, gone, kept)
        stuck[gone[~good]] = True
        gone, kept = _apart(edges, gone[good], kept[good])
        target = np.arange(size)
        target[gone] = kept
        a, b, c = target[surface.faces].T
        whole = (a != b) & (b != c) & (c != a)
        surface = replace(surface, faces=np.stack([a, b, c], 1)[whole])
        if len(gone) <= FEW * size:
            break
    used, faces = np.unique(surface.faces, return_inverse=True)
    return _Surface(surface.points[used], faces.reshape(-1, 3), surface.values[used])


def _short_edges(surface: _Surface, edges: _Edges, stuck: Flags) -> tuple[Ints, Ints]:
    """List (gone, kept) for the shortest edge, if short, at each vertex that may go; the shortest of all first.

    A vertex with three neighbours is a bump in one big face, and may go at any length.
    """
    relative = surface.lengths(*edges.ends) / surface.target(*edges.ends)
    (a, b), (c, d), valence = edges.ends, edges.wings, edges.valence
    wanted = (relative < SHORT) | (valence[a] == 3) | (valence[b] == 3)
    wanted &= edges.inner & (valence[c] > 3) & (valence[d] > 3)
    gone, kept = np.stack([a, b])[:, wanted], np.stack([b, a])[:, wanted]
    may = ((relative[wanted] < SHORT) | (valence[gone] == 3)) & ~(stuck | edges.fixed)[gone]
    order = np.broadcast_to(relative[wanted], may.shape)[may]
    # strictly by length, whole slopes of lengths would wait for each other: shuffle those of similar length
    order = np.argsort(np.floor(8 * order) + np.random.default_rng(0).random(len(order)))
    gone, kept = gone[may][order], kept[may][order]
    first = np.full(len(valence), -1)
    first[gone[::-1]] = np.arange(len(gone))[::-1]
    chosen = np.sort(first[first >= 0])
    return gone[chosen], kept[chosen]


def _may_collapse(surface: _Surface, edges: _Edges, gone: Ints, kept: Ints) -> Flags:
    """Test the link condition, and that no face turns over and no edge gets long."""
    row, p, q = _rings(surface.faces, len(edges.valence), gone)
    goal = kept[row]
    shared = edges.exist(p, goal) & (p != goal)
    before = _area_vectors(surface.points, gone[row], p, q)
    before += AROUND * _sum_at(row, before, len(gone))[row]
    after = _area_vectors(surface.points, goal, p, q)
    long = surface.lengths(p, goal) > LONG * surface.target(p, goal)
    bad = (p != goal) & (q != goal) & (long | _turned(before, after))
    links, faults = np.bincount(row, shared, len(gone)), np.bincount(row, bad, len(gone))
    return np.asarray((links == 2) & (faults == 0))


def _apart(edges: _Edges, gone: Ints, kept: Ints) -> tuple[Ints, Ints]:
    """Choose collapses, the first ones first, with no end of one in the closed ring of the vertex another loses."""
    rank, size = np.arange(len(gone)), len(edges.valence)
    touched, lost = np.full((2, size), len(gone))
    np.minimum.at(touched, gone, rank)
    np.minimum.at(touched, kept, rank)
    lost[gone] = rank
    touched, lost = _least_around(edges, touched), _least_around(edges, lost)
    free = (touched[gone] == rank) & (lost[gone] == rank) & (lost[kept] == rank)
    return gone[free], kept[free]


def _flip(surface: _Surface) -> _Surface:
    """Turn edges in the quad of their two faces where that brings valences closer to 6, or 4 at a boundary."""
    while True:
        edges = _edges(surface.faces, len(surface.points))
        excess = edges.valence - np.where(edges.fixed, 4, 6)
        (a, b), (c, d) = edges.ends, edges.wings
        gain = excess[a] + excess[b] - excess[c] - excess[d]  # the sum of squares falls by 2 gain − 4
        chosen = np.flatnonzero(edges.inner & (gain > 2))
        chosen = chosen[np.argsort(-gain[chosen], kind="stable")]
        chosen = chosen[_may_flip(surface, edges, chosen)]
        quads = np.stack([a, d, b, c])[:, chosen]
        rank, first = np.arange(len(chosen)), np.full(len(excess), len(chosen))
        np.minimum.at(first, quads.ravel(), np.tile(rank, 4))
        free = (first[quads] == rank).all(0)
        faces, (a, d, b, c) = surface.faces.copy(), quads[:, free]
        faces[edges.sides[0][chosen[free]]] = np.stack([a, d, c], 1)
        faces[edges.sides[1][chosen[free]]] = np.stack([d, b, c], 1)
        surface = replace(surface, faces=faces)
        if len(a) <= FEW * len(excess):
            return surface


def _may_flip(surface: _Surface, edges: _Edges, chosen: Ints) -> Flags:
    """Test that the turned edge is new, both ends keep three neighbours, and no face turns over."""
    a, b, c, d = (x[chosen] for x in (*edges.ends, *edges.wings))
    before = [_area_vectors(surface.points, a, b, c), _area_vectors(surface.points, b, a, d)]
    after = [_area_vectors(surface.points, a, d, c), _area_vectors(surface.points, d, b, c)]
    both = AROUND * (before[0] + before[1])
    turned = np.any([_turned(x + both, y) for x in before for y in after], axis=0)
    enough = np.minimum(edges.valence[a], edges.valence[b]) > 3
    return np.asarray(enough & (c != d) & ~edges.exist(c, d) & ~turned)


def _relax(surface: _Surface) -> _Surface:
    """Move each vertex to the mean of its neighbours, within its tangent plane and where no face turns over."""
    points, faces, size = surface.points, surface.faces, len(surface.points)
    edges = _edges(faces, size)
    start, end = np.r_[edges.ends], np.r_[edges.ends[::-1]]
    offset = _sum_at(start, points[end] - points[start], size) / np.maximum(edges.valence, 1)[:, None]
    before = surface.area_vectors()
    normals = _sum_at(faces.T.ravel(), np.tile(before, (3, 1)), size)
    normals /= np.maximum(_norm(normals), np.finfo(float).tiny)[:, None]
    offset -= _dot(offset, normals)[:, None] * normals
    offset[edges.fixed] = 0
    before += AROUND * _norm(before)[:, None] * normals[faces].sum(1)
    while True:
        moved = replace(surface, points=points + offset)
        turned = faces[_turned(before, moved.area_vectors())]
        if not offset[turned].any():
            return moved
        offset[turned] = 0


def _rings(faces: Ints, size: int, vertices: Ints) -> tuple[Ints, Ints, Ints]:
    """List the faces (vertex, p, q) around vertices, as the place of the vertex in the list, p and q."""
    corners = _order(faces.ravel(), size)
    start = np.cumsum(np.r_[0, np.bincount(faces.ravel(), minlength=size)])
    count = (start[1:] - start[:-1])[vertices]
    row = np.repeat(np.arange(len(vertices)), count)
    place = np.arange(len(row)) + (start[vertices] - np.cumsum(count) + count)[row]
    face, k = np.divmod(corners[place], 3)
    return row, faces[face, (k + 1) % 3], faces[face, (k + 2) % 3]


def _least_around(edges: _Edges, rank: Ints) -> Ints:
    """Take the least number of each vertex and its neighbours."""
    least, (a, b) = rank.copy(), edges.ends
    np.minimum.at(least, a, rank[b])
    np.minimum.at(least, b, rank[a])
    return least


def _turned(before: Floats, after: Floats) -> Flags:
    """Tell where a normal turns too far or vanishes."""
    limit = MAX_TURN * np.sqrt(_dot(before, before) * _dot(after, after))
    return (_dot(before, after) <= limit) & before.any(1)


def _area_vectors(points: Floats, a: Ints, b: Ints, c: Ints) -> Floats:
    return np.cross(points[b] - points[a], points[c] - points[a])


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", a, b))


def _norm(rows: Floats) -> Floats:
    return np.sqrt(_dot(rows, rows))


def _sum_at(index: Ints, rows: Floats, size: int) -> Floats:
    return np.stack([np.bincount(index, column, size) for column in rows.T], 1)


def _order(keys: Ints, size: int) -> Ints:
    """Order whole numbers below `size`, equal ones as they come: a counting sort."""
    places = np.arange(len(keys) + 1)
    return csr_array((places[1:], keys, places), shape=(len(keys), size)).tocsc().indices.astype(np.int64)


def _surface(mesh: Mesh, edge_length: float | Tensor) -> _Surface:
    where = "remesh_isotropic:"
    if mesh.vertices.ndim > 2:
        raise InputError(
            f"{where} `mesh` should hold one pose, got a batch of {list(mesh.vertices.shape[:-2])}"
        )
    points = mesh.vertices.detach().cpu().double()
    target = torch.as_tensor(edge_length, dtype=torch.float64, device="cpu").detach().expand(len(points))
    if not (bool(points.isfinite().all()) and bool((target > 0).all())):
        raise InputError(f"{where} `mesh` should have finite vertices, and `edge_length` be positive")
    colors = points[:, :0] if mesh.vertex_colors is None else mesh.vertex_colors.detach().cpu().double()
    values = torch.cat([target[:, None], colors], 1).numpy()
    surface = _Surface(points.numpy(), mesh.faces.cpu().long().numpy(), values)
    if (estimate := _estimate_faces(surface)) > MAX_FACES:
        raise InputError(f"{where} `edge_length` is so short that about {estimate:.1g} faces would be needed")
    return surface


def _estimate_faces(surface: _Surface) -> float:
    """Count equilateral triangles in the area of each face, and slivers, which splits cut in three per halving."""
    a, b, c = surface.faces.T
    longest = np.maximum(surface.lengths(a, b), np.maximum(surface.lengths(b, c), surface.lengths(c, a)))
    target = surface.target(a, b)
    return float(
        (_norm(surface.area_vectors()) / 2 / (3**0.5 / 4 * target**2) + (longest / target) ** 1.6).sum()
    )


def _mesh(surface: _Surface, like: Mesh) -> Mesh:
    colors = like.vertex_colors
    if colors is not None:
        colors = torch.from_numpy(surface.values[:, 1:]).to(colors)
    vertices, faces = torch.from_numpy(surface.points), torch.from_numpy(surface.faces)
    return Mesh(vertices.to(like.vertices), faces.to(like.faces), colors)
