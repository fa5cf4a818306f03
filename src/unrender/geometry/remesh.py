"""Isotropic remeshing: resample a surface with triangles of a target edge length.

Botsch & Kobbelt, "A Remeshing Approach to Multiresolution Modeling" (SGP 2004): split long edges, collapse short edges,
flip edges towards valence 6, relax vertices tangentially. Each step applies an independent set of operations at once,
with the result of applying them one by one. A closed manifold remains one, of the same genus.
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

SPLIT_RATIO, COLLAPSE_RATIO = 4 / 3, 4 / 5
"""Edges longer or shorter than these multiples of the target length are split or collapsed (section 4)."""
MIN_NORMAL_COSINE = 0.5
"""Cosine of the largest angle by which one operation may rotate a face normal."""
NEIGHBOR_WEIGHT = 0.2
"""Weight of the neighboring area vectors in a face's reference normal, as the normals of slivers are unreliable."""
MIN_CHANGED_FRACTION = 1e-3
"""A step ends when a round changes less than this fraction of the vertices."""
MAX_FACES = 20_000_000
"""More faces would take minutes and tens of gigabytes, and usually mean that `edge_length` is in the wrong unit."""


@checked
def remesh_isotropic(
    mesh: Mesh, edge_length: float | Float[Tensor, " vertices"], iterations: int = 5
) -> Mesh:
    """Remesh a surface with edges close to `edge_length`, in world units; a tensor gives one length per vertex.

    Boundary edges are split but otherwise preserved. Vertex colors are interpolated.
    Raises InputError if the result would have more than 20 million faces.
    Differentiable in: nothing.
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
    """Vertex attributes: the target edge length, then the colors."""

    def target(self, a: Ints, b: Ints) -> Floats:
        """Return the target length of the edges between vertices."""
        length: Floats = self.values[:, 0]
        return np.add(length[a], length[b]) / 2

    def lengths(self, a: Ints, b: Ints) -> Floats:
        return _norm(self.points[a] - self.points[b])

    def area_vectors(self) -> Floats:
        return _area_vectors(self.points, *self.faces.T)


@dataclass(frozen=True)
class _Edges:
    """Unique edges (a, b); an `inner` edge has two adjacent faces `sides`, (a, b, c) and (b, a, d)."""

    keys: Ints
    ends: tuple[Ints, Ints]
    wings: tuple[Ints, Ints]
    sides: tuple[Ints, Ints]
    inner: Flags
    face_edges: Ints
    valence: Ints
    fixed: Flags
    """Vertices at boundary or non-manifold edges."""

    def exist(self, a: Ints, b: Ints) -> Flags:
        """Return which pairs of vertices are edges."""
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
    """Split long edges at their midpoints, with one, two or three splits per face, until no long edge is left."""
    while True:
        size = len(surface.points)
        edges = _edges(surface.faces, size)
        long = surface.lengths(*edges.ends) > SPLIT_RATIO * surface.target(*edges.ends)
        if not long.any():
            return surface
        midpoints = np.full(len(long), -1)
        midpoints[long] = np.arange(size, size + long.sum())
        a, b = (ends[long] for ends in edges.ends)
        surface = replace(
            surface,
            points=np.concatenate([surface.points, (surface.points[a] + surface.points[b]) / 2]),
            values=np.concatenate([surface.values, (surface.values[a] + surface.values[b]) / 2]),
        )
        surface = replace(surface, faces=_split_faces(surface, midpoints[edges.face_edges]))


def _split_faces(surface: _Surface, midpoints: Ints) -> Ints:
    """Replace faces with two, three or four; `midpoints` holds the new vertex on each edge, or −1."""
    number = (midpoints >= 0).sum(1)
    # rotate each face so that a single split is on edge 0, and a single edge without split is edge 2
    first = np.where(number == 2, (midpoints < 0).argmax(1) + 1, (midpoints >= 0).argmax(1))
    order = (first[:, None] + np.arange(3)) % 3
    (a, b, c), (ab, bc, ca) = (np.take_along_axis(x, order, 1).T for x in (surface.faces, midpoints))
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
    return np.concatenate([np.stack(face, 1)[where] for where, faces in patterns for face in faces])


def _collapse(surface: _Surface) -> _Surface:
    """Collapse short edges into one of their ends, in rounds of independent collapses."""
    size = len(surface.points)
    rejected = np.zeros(size, bool)
    while True:
        edges = _edges(surface.faces, size)
        removed, kept = _short_edges(surface, edges, rejected)
        valid = _is_collapse_valid(surface, edges, removed, kept)
        rejected[removed[~valid]] = True
        removed, kept = _independent_collapses(edges, removed[valid], kept[valid])
        target = np.arange(size)
        target[removed] = kept
        a, b, c = target[surface.faces].T
        proper = (a != b) & (b != c) & (c != a)
        surface = replace(surface, faces=np.stack([a, b, c], 1)[proper])
        if len(removed) <= MIN_CHANGED_FRACTION * size:
            break
    used, faces = np.unique(surface.faces, return_inverse=True)
    return _Surface(surface.points[used], faces.reshape(-1, 3), surface.values[used])


def _short_edges(surface: _Surface, edges: _Edges, rejected: Flags) -> tuple[Ints, Ints]:
    """Return (removed, kept) for the shortest edge, if short, at each removable vertex; roughly shortest first.

    Vertices of valence 3 are removed regardless of edge length.
    """
    relative = surface.lengths(*edges.ends) / surface.target(*edges.ends)
    (a, b), (c, d), valence = edges.ends, edges.wings, edges.valence
    wanted = (relative < COLLAPSE_RATIO) | (valence[a] == 3) | (valence[b] == 3)
    wanted &= edges.inner & (valence[c] > 3) & (valence[d] > 3)
    removed, kept = np.stack([a, b])[:, wanted], np.stack([b, a])[:, wanted]
    removable = (relative[wanted] < COLLAPSE_RATIO) | (valence[removed] == 3)
    removable &= ~(rejected | edges.fixed)[removed]
    order = np.broadcast_to(relative[wanted], removable.shape)[removable]
    # strict order by length would serialize regions of gradually changing length: shuffle edges of similar length
    order = np.argsort(np.floor(8 * order) + np.random.default_rng(0).random(len(order)))
    removed, kept = removed[removable][order], kept[removable][order]
    first = np.full(len(valence), -1)
    first[removed[::-1]] = np.arange(len(removed))[::-1]
    chosen = np.sort(first[first >= 0])
    return removed[chosen], kept[chosen]


def _is_collapse_valid(surface: _Surface, edges: _Edges, removed: Ints, kept: Ints) -> Flags:
    """Check the link condition, and that no face flips and no edge becomes long."""
    row, p, q = _one_rings(surface.faces, len(edges.valence), removed)
    target = kept[row]
    shared = edges.exist(p, target) & (p != target)
    before = _area_vectors(surface.points, removed[row], p, q)
    before += NEIGHBOR_WEIGHT * _sum_by_index(row, before, len(removed))[row]
    after = _area_vectors(surface.points, target, p, q)
    long = surface.lengths(p, target) > SPLIT_RATIO * surface.target(p, target)
    invalid = (p != target) & (q != target) & (long | _has_flipped(before, after))
    num_shared, num_invalid = (np.bincount(row, flags, len(removed)) for flags in (shared, invalid))
    return np.asarray((num_shared == 2) & (num_invalid == 0))


def _independent_collapses(edges: _Edges, removed: Ints, kept: Ints) -> tuple[Ints, Ints]:
    """Select collapses greedily such that no end of one lies in the closed one-ring of a vertex removed by another."""
    rank, size = np.arange(len(removed)), len(edges.valence)
    first_at, first_removing = np.full((2, size), len(removed))
    np.minimum.at(first_at, removed, rank)
    np.minimum.at(first_at, kept, rank)
    first_removing[removed] = rank
    first_at, first_removing = _min_over_one_ring(edges, first_at), _min_over_one_ring(edges, first_removing)
    independent = (
        (first_at[removed] == rank) & (first_removing[removed] == rank) & (first_removing[kept] == rank)
    )
    return removed[independent], kept[independent]


def _flip(surface: _Surface) -> _Surface:
    """Flip inner edges where that brings vertex valences closer to 6, or to 4 at a boundary."""
    while True:
        edges = _edges(surface.faces, len(surface.points))
        excess = edges.valence - np.where(edges.fixed, 4, 6)
        (a, b), (c, d) = edges.ends, edges.wings
        gain = excess[a] + excess[b] - excess[c] - excess[d]  # the sum of squares falls by 2 gain − 4
        chosen = np.flatnonzero(edges.inner & (gain > 2))
        chosen = chosen[np.argsort(-gain[chosen], kind="stable")]
        chosen = chosen[_is_flip_valid(surface, edges, chosen)]
        quads = np.stack([a, d, b, c])[:, chosen]
        rank, first = np.arange(len(chosen)), np.full(len(excess), len(chosen))
        np.minimum.at(first, quads.ravel(), np.tile(rank, 4))
        independent = (first[quads] == rank).all(0)
        faces, (a, d, b, c) = surface.faces.copy(), quads[:, independent]
        faces[edges.sides[0][chosen[independent]]] = np.stack([a, d, c], 1)
        faces[edges.sides[1][chosen[independent]]] = np.stack([d, b, c], 1)
        surface = replace(surface, faces=faces)
        if len(a) <= MIN_CHANGED_FRACTION * len(excess):
            return surface


def _is_flip_valid(surface: _Surface, edges: _Edges, chosen: Ints) -> Flags:
    """Check that the flipped edge does not exist yet, both ends keep valence 3 or more, and no face flips."""
    a, b, c, d = (x[chosen] for x in (*edges.ends, *edges.wings))
    before = [_area_vectors(surface.points, a, b, c), _area_vectors(surface.points, b, a, d)]
    after = [_area_vectors(surface.points, a, d, c), _area_vectors(surface.points, d, b, c)]
    both = NEIGHBOR_WEIGHT * (before[0] + before[1])
    flipped = np.any([_has_flipped(x + both, y) for x in before for y in after], axis=0)
    keeps_valence = np.minimum(edges.valence[a], edges.valence[b]) > 3
    return np.asarray(keeps_valence & (c != d) & ~edges.exist(c, d) & ~flipped)


def _relax(surface: _Surface) -> _Surface:
    """Move each vertex to the mean of its neighbors, within its tangent plane and unless a face flips."""
    points, faces, size = surface.points, surface.faces, len(surface.points)
    edges = _edges(faces, size)
    start, end = np.r_[edges.ends], np.r_[edges.ends[::-1]]
    offset = _sum_by_index(start, points[end] - points[start], size) / np.maximum(edges.valence, 1)[:, None]
    before = surface.area_vectors()
    normals = _sum_by_index(faces.T.ravel(), np.tile(before, (3, 1)), size)
    normals /= np.maximum(_norm(normals), np.finfo(float).tiny)[:, None]
    offset -= _dot(offset, normals)[:, None] * normals
    offset[edges.fixed] = 0
    before += NEIGHBOR_WEIGHT * _norm(before)[:, None] * normals[faces].sum(1)
    while True:
        moved = replace(surface, points=points + offset)
        flipped = faces[_has_flipped(before, moved.area_vectors())]
        if not offset[flipped].any():
            return moved
        offset[flipped] = 0


def _one_rings(faces: Ints, size: int, vertices: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the faces (vertex, p, q) around each vertex, as the index into `vertices`, p and q."""
    corners = _order(faces.ravel(), size)
    start = np.cumsum(np.r_[0, np.bincount(faces.ravel(), minlength=size)])
    count = (start[1:] - start[:-1])[vertices]
    row = np.repeat(np.arange(len(vertices)), count)
    position = np.arange(len(row)) + (start[vertices] - np.cumsum(count) + count)[row]
    face, k = np.divmod(corners[position], 3)
    return row, faces[face, (k + 1) % 3], faces[face, (k + 2) % 3]


def _min_over_one_ring(edges: _Edges, rank: Ints) -> Ints:
    """Compute the minimum over each vertex and its neighbors."""
    minimum, (a, b) = rank.copy(), edges.ends
    np.minimum.at(minimum, a, rank[b])
    np.minimum.at(minimum, b, rank[a])
    return minimum


def _has_flipped(before: Floats, after: Floats) -> Flags:
    """Return where a normal rotates too far or vanishes."""
    limit = MIN_NORMAL_COSINE * np.sqrt(_dot(before, before) * _dot(after, after))
    return (_dot(before, after) <= limit) & before.any(1)


def _area_vectors(points: Floats, a: Ints, b: Ints, c: Ints) -> Floats:
    return np.cross(points[b] - points[a], points[c] - points[a])


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", a, b))


def _norm(rows: Floats) -> Floats:
    return np.sqrt(_dot(rows, rows))


def _sum_by_index(index: Ints, rows: Floats, size: int) -> Floats:
    return np.stack([np.bincount(index, column, size) for column in rows.T], 1)


def _order(keys: Ints, size: int) -> Ints:
    """Return the stable sort order of integers below `size`, by counting sort."""
    pointers = np.arange(len(keys) + 1)
    return csr_array((pointers[1:], keys, pointers), shape=(len(keys), size)).tocsc().indices.astype(np.int64)


def _surface(mesh: Mesh, edge_length: float | Tensor) -> _Surface:
    where = "remesh_isotropic:"
    if mesh.vertices.ndim > 2:
        raise InputError(
            f"{where} `mesh` should not be batched, got batch shape {list(mesh.vertices.shape[:-2])}"
        )
    points = mesh.vertices.detach().cpu().double()
    target = torch.as_tensor(edge_length, dtype=torch.float64, device="cpu").detach().expand(len(points))
    if not (bool(points.isfinite().all()) and bool((target > 0).all())):
        raise InputError(f"{where} `mesh` should have finite vertices, and `edge_length` should be positive")
    colors = points[:, :0] if mesh.vertex_colors is None else mesh.vertex_colors.detach().cpu().double()
    values = torch.cat([target[:, None], colors], 1).numpy()
    surface = _Surface(points.numpy(), mesh.faces.cpu().long().numpy(), values)
    if (estimate := _estimate_faces(surface)) > MAX_FACES:
        raise InputError(
            f"{where} `edge_length` is too short: the result would have about {estimate:.1g} faces, "
            f"more than {MAX_FACES:,}; check its unit"
        )
    return surface


def _estimate_faces(surface: _Surface) -> float:
    """Estimate the number of faces of the result: by area, plus slivers, which splits cut in three per halving."""
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
