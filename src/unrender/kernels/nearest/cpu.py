"""Nearest-neighbor search in a bounding volume hierarchy, best first; parallel over queries.

If one of the point clouds is small, each query is compared with all points instead.
"""

import math

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._batch import iterate_batch
from unrender.kernels._box_tree import MAX_STACK, fit_boxes, leaf_range, sort_points, tree_depth
from unrender.kernels._dispatch import cpu_threads

BLOCK = 256
LANES = 64
"""Queries that are compared with all points at once, in SIMD lanes."""
PAIRS = 4096
"""Pairs of points per unit of work when choosing the number of threads."""
BRUTE_FORCE_LIMIT = 512
"""Up to this many points, no tree is used; up to this many queries, none is built."""


def compares_all(num_queries: int, num_points: int, indexed: bool) -> bool:
    """Return whether brute force is faster for k = 1; `indexed` tells that a tree has been built already."""
    return num_points <= BRUTE_FORCE_LIMIT or (not indexed and num_queries <= BRUTE_FORCE_LIMIT)


def num_nodes(num_points: int) -> int:
    """Return the number of nodes of a tree."""
    return (2 << tree_depth(num_points)) - 1


def build(points: Tensor) -> tuple[Tensor, ...]:
    """Return the points in tree order, their original indices, and the bounding boxes of the nodes."""
    batch, (count, dim) = points.shape[:-2], points.shape[-2:]
    ordered = (
        points.detach().reshape(math.prod(batch), count, dim).clone(memory_format=torch.contiguous_format)
    )
    order = torch.arange(count, device="cpu").repeat(len(ordered), 1)
    depth = tree_depth(count)
    boxes = ordered.new_empty(len(ordered), num_nodes(count), 2, dim)
    with cpu_threads(count):
        for b in range(len(ordered)):
            sort_points(ordered[b].numpy(), order[b].numpy(), depth)
            fit_boxes(ordered[b].numpy(), ordered[b].numpy(), depth, boxes[b].numpy())
    return tuple(t.reshape(*batch, *t.shape[1:]) for t in (ordered, order, boxes))


def forward(
    queries: Tensor, query_order: Tensor, ordered: Tensor, order: Tensor, boxes: Tensor, k: int, norm: int
) -> tuple[Tensor, Tensor]:
    batch, count = queries.shape[:-2], queries.shape[-2]
    distances = queries.new_empty(*batch, count, k)
    ids = torch.empty(*batch, count, k, dtype=torch.int64, device="cpu")
    with cpu_threads(count):
        for arrays in iterate_batch(len(batch), queries, query_order, ordered, order, boxes, distances, ids):
            _search(*arrays, norm)
    return distances, ids


def compare_all(queries: Tensor, points: Tensor, norm: int) -> tuple[Tensor, Tensor]:
    """Find the nearest point of each query by brute force; same result as `forward` for k = 1."""
    batch, count = queries.shape[:-2], queries.shape[-2]
    distances = queries.new_empty(*batch, count, 1)
    ids = torch.empty(*batch, count, 1, dtype=torch.int64, device="cpu")
    with cpu_threads(count * points.shape[-2] // PAIRS):
        for arrays in iterate_batch(len(batch), queries.mT, points, distances, ids):
            _compare(*arrays, norm)
    return distances, ids


def backward(
    queries: Tensor, points: Tensor, ids: Tensor, grad_output: Tensor, norm: int, needs_points: bool
) -> tuple[Tensor, Tensor | None]:
    query_gradient, point_gradient = (t.new_zeros(t.shape) for t in (queries, points))
    batch = queries.dim() - 2
    for arrays in iterate_batch(batch, queries, points, ids, grad_output, query_gradient, point_gradient):
        _scatter(*arrays, norm)
    return query_gradient, point_gradient if needs_points else None


@numba.njit(cache=True, inline="always")
def _box_distance(boxes, node, query, norm):
    distance = query.dtype.type(0)
    for axis in range(len(query)):
        below = boxes[node, 0, axis] - query[axis]
        above = query[axis] - boxes[node, 1, axis]
        outside = max(below, above, query.dtype.type(0))
        distance += outside if norm == 1 else outside * outside
    return distance


@numba.njit(cache=True, inline="always")
def _distance(points, i, query, norm):
    distance = query.dtype.type(0)
    for axis in range(len(query)):
        difference = points[i, axis] - query[axis]
        distance += abs(difference) if norm == 1 else difference * difference
    return distance


@numba.njit(cache=True, inline="always")
def _insert(distances, ids, distance, item):
    """Insert a candidate into the ascending list, ties by the smaller id, dropping the last."""
    k = len(distances) - 1
    if distance > distances[k] or (distance == distances[k] and item >= ids[k]):
        return
    while k > 0 and (distances[k - 1] > distance or (distances[k - 1] == distance and ids[k - 1] > item)):
        distances[k] = distances[k - 1]
        ids[k] = ids[k - 1]
        k -= 1
    distances[k] = distance
    ids[k] = item


@numba.njit(cache=True, parallel=True)
def _search(queries, query_order, points, order, boxes, distances, ids, norm):
    num_queries, num_points, k = len(queries), len(points), distances.shape[1]
    first_leaf = len(boxes) // 2
    depth = 0
    while (2 << depth) - 1 < len(boxes):
        depth += 1
    for block in numba.prange((num_queries + BLOCK - 1) // BLOCK):
        stack = np.empty(MAX_STACK, np.int64)
        bounds = np.empty(MAX_STACK, queries.dtype)
        nearby_leaf = -1
        for i in range(block * BLOCK, min(num_queries, (block + 1) * BLOCK)):
            row = query_order[i]
            query = queries[row]
            found, found_ids = distances[row], ids[row]
            found[:] = np.inf
            found_ids[:] = num_points
            skip = nearby_leaf
            if nearby_leaf >= 0:  # start with the leaf of the previous query, which gives a tight bound
                low, high = leaf_range(nearby_leaf - first_leaf, depth, num_points)
                for j in range(low, high):
                    _insert(found, found_ids, _distance(points, j, query, norm), order[j])
            top = 0
            stack[0] = 0
            bounds[0] = _box_distance(boxes, 0, query, norm)
            while top >= 0:
                node, bound = stack[top], bounds[top]
                top -= 1
                if bound > found[k - 1]:
                    continue
                while node < first_leaf:
                    near, other = 2 * node + 1, 2 * node + 2
                    near_bound = _box_distance(boxes, near, query, norm)
                    other_bound = _box_distance(boxes, other, query, norm)
                    if other_bound < near_bound:
                        near, other = other, near
                        near_bound, other_bound = other_bound, near_bound
                    if other_bound <= found[k - 1]:
                        top += 1
                        stack[top] = other
                        bounds[top] = other_bound
                    node, bound = near, near_bound
                    if bound > found[k - 1]:
                        break
                if node >= first_leaf and bound <= found[k - 1] and node != skip:
                    low, high = leaf_range(node - first_leaf, depth, num_points)
                    before = found_ids[0]
                    for j in range(low, high):
                        _insert(found, found_ids, _distance(points, j, query, norm), order[j])
                    if found_ids[0] != before:
                        nearby_leaf = node


@numba.njit(cache=True)
def _differ(columns, point, norm, distance):
    distance[:] = 0
    for axis in range(len(columns)):
        column, coordinate = columns[axis], point[axis]
        for i in range(len(distance)):
            difference = coordinate - column[i]
            distance[i] += abs(difference) if norm == 1 else difference * difference


@numba.njit(cache=True, parallel=True)
def _compare(columns, points, distances, ids, norm):
    """Compare blocks of queries with one point after another, so that the loop over queries vectorizes."""
    for block in numba.prange((len(distances) + LANES - 1) // LANES):
        here = slice(block * LANES, min(len(distances), (block + 1) * LANES))
        count = here.stop - here.start
        smallest, distance = np.full(count, np.inf, points.dtype), np.empty(count, points.dtype)
        nearest = np.zeros(count, np.int32)
        for j in range(np.int32(len(points))):
            if len(columns) == 3 and norm == 2:  # the common case, fused over axes
                x, y, z = columns[0, here], columns[1, here], columns[2, here]
                for i in range(count):
                    dx, dy, dz = points[j, 0] - x[i], points[j, 1] - y[i], points[j, 2] - z[i]
                    distance[i] = dx * dx + dy * dy + dz * dz
            else:
                _differ(columns[:, here], points[j], norm, distance)
            for i in range(count):
                closer = distance[i] < smallest[i]
                smallest[i] = distance[i] if closer else smallest[i]
                nearest[i] = np.int32(j) if closer else nearest[i]
        for i in range(count):
            distances[here.start + i, 0], ids[here.start + i, 0] = smallest[i], nearest[i]


@numba.njit(cache=True)
def _scatter(queries, points, ids, grad_output, query_gradient, point_gradient, norm):
    """Accumulate gradients query by query: the order, and so every bit, is fixed."""
    for i in range(len(queries)):
        for axis in range(queries.shape[1]):
            total = queries.dtype.type(0)
            for j in range(ids.shape[1]):
                difference = queries[i, axis] - points[ids[i, j], axis]
                derivative = np.sign(difference) if norm == 1 else 2 * difference
                total += derivative * grad_output[i, j]
                point_gradient[ids[i, j], axis] -= derivative * grad_output[i, j]
            query_gradient[i, axis] = total
