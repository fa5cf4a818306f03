"""Reference implementation of topological simplification: one node at a time."""

import heapq
import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import generate_binary_structure, label
from torch import Tensor

Node = tuple[int, ...]
Array = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]
Parts = tuple[npt.NDArray[np.integer], list[int]]
"""Labels of the nodes, and the parent of each label."""
ADJACENT = {True: generate_binary_structure(3, 3), False: generate_binary_structure(3, 1)}
"""Adjacency of inside and of outside nodes: such a pair has no paradoxes (Kong & Rosenfeld 1989, Digital Topology)."""
NEAR = {True: np.ones((3, 3, 3), bool), False: generate_binary_structure(3, 2)}
"""The part of a node's 3³ neighborhood that decides on the topology (Bertrand & Malandain 1994)."""


def forward(values: Tensor, tunnel_tolerance: float, handle_tolerance: float) -> Tensor:
    """Grow one side in descending order of the values without creating a handle, then let it shrink back.

    Growing never adds a node that touches the side in two places, but may close a tunnel of the other side. Shrinking,
    in reverse order, stops at nodes whose removal would open a tunnel, but not at those that separate parts of the
    other side. First the inside grows, which closes tunnels, then the outside, which cuts handles.
    """
    padded = np.pad(values.cpu().numpy(), 1, constant_values=-np.inf)
    inside = padded > 0
    for side, tolerance in ((True, tunnel_tolerance), (False, handle_tolerance)):
        height = padded if side else -padded
        changeable = (inside != side) & (height >= -tolerance)
        before = inside.copy()
        _move(inside, side, -height, changeable, None)
        labels, count = label(inside != side, ADJACENT[not side])
        _move(inside, not side, height, inside != before, (labels, list(range(count + 1))))
    return torch.from_numpy(inside[1:-1, 1:-1, 1:-1].copy()).to(values.device)


def _move(inside: Flags, side: bool, order: Array, movable: Flags, parts: Parts | None) -> None:
    """Move nodes to a side, lowest order first; with `parts` (labels, their parents), do not create tunnels either."""
    queue = [(order[c], c) for c in map(tuple, np.argwhere(movable)) if _touches(inside, c, side)]
    heapq.heapify(queue)
    queued = {c for _, c in queue}
    while queue:
        _, c = heapq.heappop(queue)
        queued.remove(c)
        if not _can_move(inside, side, c, parts):
            continue
        inside[c], movable[c] = side, False
        for d in _neighbors(c):
            if movable[d] and d not in queued:
                heapq.heappush(queue, (order[d], d))
                queued.add(d)


def _can_move(inside: Flags, side: bool, c: Node, parts: Parts | None) -> bool:
    if parts is None:
        return len(_components(inside, side, c)) == 1
    labels, parents = parts
    touching = [_root(parents, labels[component[0]]) for component in _components(inside, side, c)]
    if len(_components(inside, not side, c)) != 1 or not touching or len(set(touching)) < len(touching):
        return False
    for root in touching[1:]:
        parents[root] = touching[0]
    labels[c] = touching[0]
    return True


def _root(parents: list[int], part: int) -> int:
    while parents[part] != part:
        part = parents[part]
    return part


def _neighbors(c: Node) -> Iterator[Node]:
    for offset in itertools.product((-1, 0, 1), repeat=3):
        if any(offset):
            yield tuple(int(x + y) for x, y in zip(c, offset, strict=True))


def _touches(inside: Flags, c: Node, side: bool) -> bool:
    return any(inside[d] == side for d in _neighbors(c))


def _components(inside: Flags, side: bool, c: Node) -> list[list[Node]]:
    """List the components of a side around a node that are adjacent to it."""
    start = np.array(c) - 1
    patch = (inside[tuple(slice(x, x + 3) for x in start)] == side) & NEAR[side]
    patch[1, 1, 1] = False
    labels, _ = label(patch, ADJACENT[side])
    ids = np.unique(labels[ADJACENT[side] & patch])
    return [[tuple(start + x) for x in np.argwhere(labels == i)] for i in ids]
