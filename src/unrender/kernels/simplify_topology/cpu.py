"""Topological simplification by priority queues, with the 3³ neighborhood of a node as the bits of an integer."""

import heapq
import itertools

import numba
import numpy as np
import torch
from scipy.ndimage import generate_binary_structure, label
from torch import Tensor

OFFSETS = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
CENTER, ALL = 13, (1 << 27) - 1


def _bits(flags: np.ndarray) -> int:
    return sum(1 << int(i) for i in np.flatnonzero(flags))


def _adjacency(distance: int) -> np.ndarray:
    steps = abs(OFFSETS[:, None] - OFFSETS)
    near = (steps.max(2) == 1) & (steps.sum(2) <= distance)
    near[CENTER] = near[:, CENTER] = False
    return np.array([_bits(row) for row in near])


STEPS = abs(OFFSETS).sum(1)
INSIDE = _adjacency(3), ALL & ~(1 << CENTER), ALL & ~(1 << CENTER)
OUTSIDE = _adjacency(1), _bits((STEPS == 1) | (STEPS == 2)), _bits(STEPS == 1)
"""Of each side: the neighbors of each node, the nodes that decide on the topology, and those next to the center."""


def forward(values: Tensor, tunnel_tolerance: float, handle_tolerance: float) -> Tensor:
    """Grow and shrink both sides in turn."""
    padded = np.pad(values.numpy(), 1, constant_values=-np.inf)
    inside = padded > 0
    _, height, width = padded.shape
    steps = OFFSETS @ np.array([height * width, width, 1])
    labels, parents = np.empty(padded.shape, np.int32), np.zeros(0, np.int32)
    for side, tolerance in ((True, tunnel_tolerance), (False, handle_tolerance)):
        sign = padded.dtype.type(1 if side else -1)
        before = inside.copy()
        movable = (inside != side) & (sign * padded >= -tolerance)
        _move(inside.ravel(), side, padded.ravel(), -sign, movable.ravel(), steps, labels.ravel(), parents)
        movable = inside != before
        if movable.any():
            count = label(inside != side, generate_binary_structure(3, 1 if side else 3), output=labels)
            parts = np.arange(count + 1, dtype=np.int32)
            _move(
                inside.ravel(), not side, padded.ravel(), sign, movable.ravel(), steps, labels.ravel(), parts
            )
    return torch.from_numpy(inside[1:-1, 1:-1, 1:-1].copy())


@numba.njit(cache=True)
def _lowest(mask):
    """Return the index of the lowest bit that is set."""
    index = 0
    for width in (16, 8, 4, 2, 1):
        if mask & ((1 << width) - 1) == 0:
            mask >>= width
            index += width
    return index


@numba.njit(cache=True)
def _components(mask, side, first):
    """Count the components of a neighborhood that touch its center; note a node of each."""
    adjacency, near, touching = INSIDE if side else OUTSIDE
    rest, count = mask & near, 0
    while rest & touching:
        start = _lowest(rest & touching)
        first[count] = start
        count += 1
        front = 1 << start
        rest &= ~front
        while front:
            node = _lowest(front)
            front &= ~(1 << node)
            found = adjacency[node] & rest
            rest &= ~found
            front |= found
    return count


@numba.njit(cache=True)
def _root(parents, part):
    while parents[part] != part:
        parents[part] = parents[parents[part]]
        part = parents[part]
    return part


@numba.njit(cache=True)
def _can_move(mask, side, node, steps, labels, parents, first, roots):
    """Tell whether a node may move to a side; `mask` has the neighbors on that side."""
    if len(parents) == 0:
        return _components(mask, side, first) == 1
    if _components(ALL & ~(1 << CENTER) & ~mask, not side, first) != 1:
        return False
    count = _components(mask, side, first)
    for i in range(count):
        roots[i] = _root(parents, labels[node + steps[first[i]]])
        for j in range(i):
            if roots[j] == roots[i]:
                return False
    for i in range(1, count):
        parents[roots[i]] = roots[0]
    if count:
        labels[node] = roots[0]
    return count > 0


@numba.njit(cache=True)
def _move(inside, side, values, sign, movable, steps, labels, parents):
    """Move nodes to a side, those with the lowest sign · value first."""
    first, roots = np.empty(27, np.int64), np.empty(27, np.int64)
    queued = np.zeros(len(inside), np.bool_)
    queue = [(sign * values[0], 0) for _ in range(0)]
    for node in range(len(inside)):
        if movable[node]:
            for step in steps:
                if inside[node + step] == side:
                    heapq.heappush(queue, (sign * values[node], node))
                    queued[node] = True
                    break
    while len(queue):
        _, node = heapq.heappop(queue)
        queued[node] = False
        mask = 0
        for i in range(27):
            if i != CENTER and inside[node + steps[i]] == side:
                mask |= 1 << i
        if _can_move(mask, side, node, steps, labels, parents, first, roots):
            inside[node] = side
            movable[node] = False
            for step in steps:
                other = node + step
                if movable[other] and not queued[other]:
                    heapq.heappush(queue, (sign * values[other], other))
                    queued[other] = True
