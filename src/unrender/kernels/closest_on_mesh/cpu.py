"""Closest points on a mesh by a bounding volume hierarchy over its faces; parallel over queries."""

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._batch import iterate_batch
from unrender.kernels._box_tree import MAX_STACK, fit_boxes, leaf_range, sort_points, tree_depth
from unrender.kernels._dispatch import cpu_threads

BLOCK = 256


def build(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return the order of the faces [*batch faces] in a tree over their centers."""
    batch = vertices.shape[:-2]
    centers = vertices.detach().mT[..., faces].mean(-1).mT.contiguous()
    order = torch.arange(len(faces), device="cpu").repeat(*batch, 1)
    with cpu_threads(len(faces)):
        for arrays in iterate_batch(len(batch), centers, order):
            sort_points(*arrays, tree_depth(len(faces)))
    return order


def forward(
    queries: Tensor, query_order: Tensor, vertices: Tensor, faces: Tensor, order: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    batch = queries.shape[:-1]
    distances, barycentrics = queries.new_empty(batch), queries.new_empty(queries.shape)
    ids = torch.empty(batch, dtype=torch.int64, device="cpu")
    depth = tree_depth(len(faces))
    boxes = vertices.new_empty((2 << depth) - 1, 2, 3).numpy()
    tensors = queries, query_order, vertices, order, distances, ids, barycentrics
    with cpu_threads(queries.shape[-2]):
        for query, rows, corners, order_, *found in iterate_batch(len(batch) - 1, *tensors):
            ordered = corners[faces.numpy()[order_]]
            fit_boxes(ordered.min(1), ordered.max(1), depth, boxes)
            _search(query, rows, ordered, order_, boxes, depth, *found)
    return distances, ids, barycentrics


def backward(
    queries: Tensor, vertices: Tensor, faces: Tensor, ids: Tensor, barycentrics: Tensor, grad_output: Tensor
) -> tuple[Tensor, Tensor]:
    query_gradient, vertex_gradient = (t.new_zeros(t.shape) for t in (queries, vertices))
    tensors = queries, vertices, ids, barycentrics, grad_output, query_gradient, vertex_gradient
    for arrays in iterate_batch(queries.dim() - 2, *tensors):
        _scatter(faces.contiguous().numpy(), *arrays)
    return query_gradient, vertex_gradient


@numba.njit(cache=True, inline="always")
def _box_distance(boxes, node, x, y, z):
    zero = boxes.dtype.type(0)
    dx = max(boxes[node, 0, 0] - x, x - boxes[node, 1, 0], zero)
    dy = max(boxes[node, 0, 1] - y, y - boxes[node, 1, 1], zero)
    dz = max(boxes[node, 0, 2] - z, z - boxes[node, 1, 2], zero)
    return dx * dx + dy * dy + dz * dz


@numba.njit(cache=True)
def _minus(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@numba.njit(cache=True)
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@numba.njit(cache=True)
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@numba.njit(cache=True)
def _closest_on_segment(point, side, zero, one):
    """Return the squared distance of `point` to the segment from 0 to `side`, and the fraction along it."""
    length = _dot(side, side)
    t = min(max(_dot(point, side) / length, zero), one) if length > zero else zero
    offset = point[0] - t * side[0], point[1] - t * side[1], point[2] - t * side[2]
    return _dot(offset, offset), t


@numba.njit(cache=True)
def _closest_on_triangle(corners, x, y, z):
    """Return the squared distance, and the barycentrics (v, w) of the corners b and c.

    The projection is computed with cross products, which are accurate for slivers; ab² ac² − (ab · ac)² is not.
    Source: Ericson, Real-Time Collision Detection, 3.4 and 5.1.5.
    """
    zero, one = corners.dtype.type(0), corners.dtype.type(1)
    a, b, c = (
        (corners[0, 0], corners[0, 1], corners[0, 2]),
        (corners[1, 0], corners[1, 1], corners[1, 2]),
        (corners[2, 0], corners[2, 1], corners[2, 2]),
    )
    ab, ac, ap = _minus(b, a), _minus(c, a), _minus((x, y, z), a)
    normal = _cross(ab, ac)
    area = _dot(normal, normal)
    if area > zero:
        v, w = _dot(_cross(ap, ac), normal) / area, _dot(_cross(ab, ap), normal) / area
        if v >= zero and w >= zero and v + w <= one:
            offset = (
                ap[0] - v * ab[0] - w * ac[0],
                ap[1] - v * ab[1] - w * ac[1],
                ap[2] - v * ab[2] - w * ac[2],
            )
            return _dot(offset, offset), v, w
    best, v = _closest_on_segment(ap, ab, zero, one)
    w = zero
    distance, t = _closest_on_segment(ap, ac, zero, one)
    if distance < best:
        best, v, w = distance, zero, t
    distance, t = _closest_on_segment(_minus(ap, ab), _minus(ac, ab), zero, one)
    if distance < best:
        best, v, w = distance, one - t, t
    return best, v, w


@numba.njit(cache=True, parallel=True)
def _search(queries, query_order, corners, order, boxes, depth, distances, ids, barycentrics):
    num_queries, num_faces = len(queries), len(corners)
    first_leaf = (1 << depth) - 1
    for block in numba.prange((num_queries + BLOCK - 1) // BLOCK):
        stack = np.empty(MAX_STACK, np.int64)
        bounds = np.empty(MAX_STACK, queries.dtype)
        nearby = -1
        for i in range(block * BLOCK, min(num_queries, (block + 1) * BLOCK)):
            row = query_order[i]
            x, y, z = queries[row, 0], queries[row, 1], queries[row, 2]
            best, best_v, best_w = queries.dtype.type(np.inf), queries.dtype.type(0), queries.dtype.type(0)
            best_index, best_id = -1, num_faces
            if nearby >= 0:  # start with the face of the previous query, which gives a tight bound
                best, best_v, best_w = _closest_on_triangle(corners[nearby], x, y, z)
                best_index, best_id = nearby, order[nearby]
            top = 0
            stack[0] = 0
            bounds[0] = _box_distance(boxes, 0, x, y, z)
            while top >= 0:
                node, bound = stack[top], bounds[top]
                top -= 1
                while bound <= best and node < first_leaf:
                    near, other = 2 * node + 1, 2 * node + 2
                    near_bound = _box_distance(boxes, near, x, y, z)
                    other_bound = _box_distance(boxes, other, x, y, z)
                    if other_bound < near_bound:
                        near, other = other, near
                        near_bound, other_bound = other_bound, near_bound
                    if other_bound <= best:
                        top += 1
                        stack[top] = other
                        bounds[top] = other_bound
                    node, bound = near, near_bound
                if bound <= best:
                    low, high = leaf_range(node - first_leaf, depth, num_faces)
                    for j in range(low, high):
                        distance, v, w = _closest_on_triangle(corners[j], x, y, z)
                        if distance < best or (distance == best and order[j] < best_id):
                            best, best_v, best_w, best_index, best_id = distance, v, w, j, order[j]
            nearby = best_index
            distances[row] = best
            ids[row] = best_id
            barycentrics[row, 0] = 1 - best_v - best_w
            barycentrics[row, 1] = best_v
            barycentrics[row, 2] = best_w


@numba.njit(cache=True)
def _scatter(faces, queries, vertices, ids, barycentrics, grad_output, query_gradient, vertex_gradient):
    """Accumulate gradients query by query: the order, and so every bit, is fixed."""
    for i in range(len(queries)):
        a, b, c = faces[ids[i]]
        for axis in range(3):
            closest = (
                barycentrics[i, 0] * vertices[a, axis]
                + barycentrics[i, 1] * vertices[b, axis]
                + barycentrics[i, 2] * vertices[c, axis]
            )
            gradient = 2 * (queries[i, axis] - closest) * grad_output[i]
            query_gradient[i, axis] = gradient
            vertex_gradient[a, axis] -= gradient * barycentrics[i, 0]
            vertex_gradient[b, axis] -= gradient * barycentrics[i, 1]
            vertex_gradient[c, axis] -= gradient * barycentrics[i, 2]
