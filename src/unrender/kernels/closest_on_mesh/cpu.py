"""Nearest points on a surface through a tree of boxes around its faces; queries are spread over the threads."""

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._box_tree import MAX_STACK, fit_boxes, leaf_range, sort_points, tree_depth
from unrender.kernels._dispatch import cpu_threads

BLOCK = 256


def build(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return the faces' order [*batch faces] in a tree over their centers."""
    centers = vertices.detach().mT[..., faces].mean(-1).mT.contiguous()
    flat = centers.reshape(-1, len(faces), 3)
    order = torch.arange(len(faces)).repeat(len(flat), 1)
    with cpu_threads():
        for b in range(len(flat)):
            sort_points(flat[b].numpy(), order[b].numpy(), tree_depth(len(faces)))
    return order.reshape(*vertices.shape[:-2], len(faces))


def forward(
    queries: Tensor, query_order: Tensor, vertices: Tensor, faces: Tensor, order: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    batch = queries.shape[:-1]
    distances, barycentrics = queries.new_empty(batch), torch.empty_like(queries)
    ids = torch.empty(batch, dtype=torch.int64)
    depth = tree_depth(len(faces))
    boxes = vertices.new_empty((2 << depth) - 1, 2, 3).numpy()
    flat = [
        t.reshape(-1, *t.shape[len(batch) - 1 :]).numpy()
        for t in (queries.contiguous(), query_order, vertices, order, distances, ids, barycentrics)
    ]
    with cpu_threads():
        for query, rows, corners, order_, *found in zip(*flat, strict=True):
            ordered = corners[faces.numpy()[order_]]
            fit_boxes(ordered.min(1), ordered.max(1), depth, boxes)
            _search(query, rows, ordered, order_, boxes, depth, *found)
    return distances, ids, barycentrics


def backward(
    queries: Tensor, vertices: Tensor, faces: Tensor, ids: Tensor, barycentrics: Tensor, cotangent: Tensor
) -> tuple[Tensor, Tensor]:
    query_gradient, vertex_gradient = torch.empty_like(queries), torch.zeros_like(vertices)
    batch = queries.dim() - 2
    flat = [
        t.contiguous().reshape(-1, *t.shape[batch:]).numpy()
        for t in (queries, vertices, ids, barycentrics, cotangent, query_gradient, vertex_gradient)
    ]
    for arrays in zip(*flat, strict=True):
        _scatter(faces.numpy(), *arrays)
    return query_gradient, vertex_gradient


@numba.njit(cache=True, inline="always")
def _box_distance(boxes, node, x, y, z):
    zero = boxes.dtype.type(0)
    dx = max(boxes[node, 0, 0] - x, x - boxes[node, 1, 0], zero)
    dy = max(boxes[node, 0, 1] - y, y - boxes[node, 1, 1], zero)
    dz = max(boxes[node, 0, 2] - z, z - boxes[node, 1, 2], zero)
    return dx * dx + dy * dy + dz * dz


@numba.njit(cache=True)
def _closest_on_triangle(corners, x, y, z):
    """Return squared distance and barycentrics (v, w) of b and c: Ericson, Real-Time Collision Detection, 5.1.5."""
    zero, one = corners.dtype.type(0), corners.dtype.type(1)
    abx, aby, abz = corners[1, 0] - corners[0, 0], corners[1, 1] - corners[0, 1], corners[1, 2] - corners[0, 2]
    acx, acy, acz = corners[2, 0] - corners[0, 0], corners[2, 1] - corners[0, 1], corners[2, 2] - corners[0, 2]
    apx, apy, apz = x - corners[0, 0], y - corners[0, 1], z - corners[0, 2]
    ab, ac, bc = abx * abx + aby * aby + abz * abz, acx * acx + acy * acy + acz * acz, abx * acx + aby * acy + abz * acz
    pb, pc = apx * abx + apy * aby + apz * abz, apx * acx + apy * acy + apz * acz
    area = ab * ac - bc * bc
    v, w = zero, zero
    inside = False
    if area > zero:
        v, w = (ac * pb - bc * pc) / area, (ab * pc - bc * pb) / area
        inside = v >= zero and w >= zero and v + w <= one
    if not inside:  # the nearest of the three sides
        v = min(max(pb / ab, zero), one) if ab > zero else zero
        w = zero
        best = (apx - v * abx) ** 2 + (apy - v * aby) ** 2 + (apz - v * abz) ** 2
        t = min(max(pc / ac, zero), one) if ac > zero else zero
        distance = (apx - t * acx) ** 2 + (apy - t * acy) ** 2 + (apz - t * acz) ** 2
        if distance < best:
            v, w, best = zero, t, distance
        side = ab + ac - bc - bc
        t = min(max((pc - pb + ab - bc) / side, zero), one) if side > zero else zero
        dx, dy, dz = apx - abx - t * (acx - abx), apy - aby - t * (acy - aby), apz - abz - t * (acz - abz)
        if dx * dx + dy * dy + dz * dz < best:
            v, w = one - t, t
    dx, dy, dz = apx - v * abx - w * acx, apy - v * aby - w * acy, apz - v * abz - w * acz
    return dx * dx + dy * dy + dz * dz, v, w


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
            best_place, best_id = -1, num_faces
            if nearby >= 0:  # the face that served the query before bounds the search from the start
                best, best_v, best_w = _closest_on_triangle(corners[nearby], x, y, z)
                best_place, best_id = nearby, order[nearby]
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
                            best, best_v, best_w, best_place, best_id = distance, v, w, j, order[j]
            nearby = best_place
            distances[row] = best
            ids[row] = best_id
            barycentrics[row, 0] = 1 - best_v - best_w
            barycentrics[row, 1] = best_v
            barycentrics[row, 2] = best_w


@numba.njit(cache=True)
def _scatter(faces, queries, vertices, ids, barycentrics, cotangent, query_gradient, vertex_gradient):
    """Add up the gradients one query after another: the order, and so every bit, is fixed."""
    for i in range(len(queries)):
        a, b, c = faces[ids[i]]
        for axis in range(3):
            closest = (
                barycentrics[i, 0] * vertices[a, axis]
                + barycentrics[i, 1] * vertices[b, axis]
                + barycentrics[i, 2] * vertices[c, axis]
            )
            slope = 2 * (queries[i, axis] - closest) * cotangent[i]
            query_gradient[i, axis] = slope
            vertex_gradient[a, axis] -= slope * barycentrics[i, 0]
            vertex_gradient[b, axis] -= slope * barycentrics[i, 1]
            vertex_gradient[c, axis] -= slope * barycentrics[i, 2]
