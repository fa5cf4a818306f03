"""Closest points on a mesh by a bounding volume hierarchy over its faces; one thread per query.

Gradients of vertices are accumulated in fixed point, so that they do not depend on the order of threads.
"""

import math
from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._fixed_point import from_sums
from unrender.kernels._warp import (
    Precision,
    count_log2,
    in_units,
    launch,
    per_precision,
    record_term,
    unit_exponent,
)
from unrender.kernels._warp_tree import STACK, curve_order, first_node, fit_boxes, leaf_start, tree_depth


def build(vertices: Tensor, faces: Tensor) -> Tensor:
    corners = vertices.detach()[..., faces.long(), :]
    centers = corners.mean(-2).reshape(-1, len(faces), 3)
    return curve_order(centers.contiguous()).reshape(*vertices.shape[:-2], len(faces))


def forward(
    queries: Tensor, query_order: Tensor, vertices: Tensor, faces: Tensor, order: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    distances, barycentrics = queries.new_empty(queries.shape[:-1]), queries.new_empty(queries.shape)
    ids = torch.empty(distances.shape, dtype=torch.int64, device=queries.device)
    batch, count = math.prod(vertices.shape[:-2]), len(faces)
    flat = vertices.detach().reshape(batch, -1, 3)
    corner_ids = faces.long()[order.reshape(batch, count)].reshape(batch, count * 3, 1).expand(-1, -1, 3)
    corners = flat.gather(1, corner_ids).view(batch, count, 3, 3)
    boxes = fit_boxes(corners.amin(2), corners.amax(2))
    depth = tree_depth(count)
    launch(
        closest_kernels(queries.dtype).search,
        (batch, queries.shape[-2]),
        queries.detach().contiguous(),
        query_order.contiguous(),
        corners,
        order.contiguous(),
        boxes,
        depth,
        first_node(depth),
        distances,
        ids,
        barycentrics,
    )
    return distances, ids, barycentrics


def backward(
    queries: Tensor, vertices: Tensor, faces: Tensor, ids: Tensor, barycentrics: Tensor, grad_output: Tensor
) -> tuple[Tensor, Tensor]:
    tensors = (queries, vertices, faces.long(), ids, barycentrics, grad_output)
    arrays = [t.detach().contiguous() for t in tensors]
    gradient = torch.empty_like(arrays[0])
    totals = torch.zeros(vertices.numel() + 1, dtype=torch.int64, device=vertices.device)
    totals, max_term = totals[:-1], totals[-1:]
    kernels, terms = closest_kernels(queries.dtype), count_log2(3 * ids.numel())
    size = (math.prod(queries.shape[:-2]), queries.shape[-2])
    launch(kernels.query_gradients, size, *arrays, gradient, max_term)
    launch(kernels.scatter, size, gradient, *arrays[2:5], vertices.shape[-2], terms, max_term, totals)
    return gradient, from_sums(totals, max_term, terms, vertices.dtype).view(vertices.shape)


@per_precision("closest_on_mesh")
def closest_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec3 = types.scalar, types.vec3
    nodes, bounds_of_nodes = wp.types.vector(STACK, wp.int32), wp.types.vector(STACK, types.scalar)
    zero, one = scalar(0.0), scalar(1.0)

    @wp.func
    def box_distance(boxes: wp.array3d(dtype=vec3), b: int, node: int, query: vec3):
        outside = wp.max(boxes[b, node, 0] - query, query - boxes[b, node, 1])
        outside = wp.max(outside, vec3(scalar(0.0)))
        return wp.dot(outside, outside)

    @wp.func
    def closest_on_segment(point: vec3, side: vec3):
        """Return the squared distance of `point` to the segment from 0 to `side`, and the fraction along it."""
        length = wp.dot(side, side)
        t = scalar(0.0)
        if length > zero:
            t = wp.clamp(wp.dot(point, side) / length, zero, one)
        offset = point - t * side
        return wp.vector(wp.dot(offset, offset), t)

    @wp.func
    def closest_on_triangle(a: vec3, b: vec3, c: vec3, query: vec3):
        """Return the squared distance, and the barycentrics (v, w) of the corners b and c.

        The projection is computed with cross products, which are accurate for slivers; ab² ac² − (ab · ac)² is
        not. Source: Ericson, Real-Time Collision Detection, 3.4 and 5.1.5.
        """
        ab, ac, ap = b - a, c - a, query - a
        normal = wp.cross(ab, ac)
        area = wp.dot(normal, normal)
        if area > zero:
            v = wp.dot(wp.cross(ap, ac), normal) / area
            w = wp.dot(wp.cross(ab, ap), normal) / area
            if v >= zero and w >= zero and v + w <= one:
                offset = ap - v * ab - w * ac
                return vec3(wp.dot(offset, offset), v, w)
        along_ab = closest_on_segment(ap, ab)
        along_ac = closest_on_segment(ap, ac)
        along_bc = closest_on_segment(ap - ab, ac - ab)
        best = vec3(along_ab[0], along_ab[1], zero)
        if along_ac[0] < best[0]:
            best = vec3(along_ac[0], zero, along_ac[1])
        if along_bc[0] < best[0]:
            best = vec3(along_bc[0], one - along_bc[1], along_bc[1])
        return best

    @types.kernel
    def search(
        queries: wp.array2d(dtype=vec3),
        query_order: wp.array2d(dtype=wp.int64),
        corners: wp.array3d(dtype=vec3),
        order: wp.array2d(dtype=wp.int64),
        boxes: wp.array3d(dtype=vec3),
        depth: int,
        first_leaf: int,
        distances: wp.array2d(dtype=scalar),
        ids: wp.array2d(dtype=wp.int64),
        barycentrics: wp.array2d(dtype=vec3),
    ):
        b, i = wp.tid()
        row = int(query_order[b, i])
        query = queries[b, row]
        num_faces = corners.shape[1]
        best = vec3(scalar(wp.inf), zero, zero)
        best_id = wp.int64(num_faces)
        stack, bounds = nodes(0), bounds_of_nodes(scalar(0.0))
        top = int(0)
        while top >= 0:
            node = stack[top]
            bound = bounds[top]
            top -= 1
            while (
                bound <= best[0] and node < first_leaf
            ):  # descend to the nearest leaf, push the other children
                nearest_child = int(0)
                nearest_bound = scalar(wp.inf)
                for c in range(4):
                    child = 4 * node + 1 + c
                    child_bound = box_distance(boxes, b, child, query)
                    if child_bound <= best[0]:
                        if nearest_child > 0:
                            top += 1
                            if child_bound < nearest_bound:
                                stack[top] = nearest_child
                                bounds[top] = nearest_bound
                            else:
                                stack[top] = child
                                bounds[top] = child_bound
                        if nearest_child == 0 or child_bound < nearest_bound:
                            nearest_child = child
                            nearest_bound = child_bound
                node = nearest_child
                bound = nearest_bound
                if nearest_child == 0:
                    bound = scalar(wp.inf)
                    break
            if node >= first_leaf and bound <= best[0]:
                leaf = node - first_leaf
                for j in range(leaf_start(leaf, depth, num_faces), leaf_start(leaf + 1, depth, num_faces)):
                    found = closest_on_triangle(corners[b, j, 0], corners[b, j, 1], corners[b, j, 2], query)
                    face = order[b, j]
                    if found[0] < best[0] or (found[0] == best[0] and face < best_id):
                        best = found
                        best_id = face
        if best_id == wp.int64(num_faces):  # NaN coordinates
            best_id = wp.int64(0)
            best = vec3(scalar(wp.nan), zero, zero)
        distances[b, row] = best[0]
        ids[b, row] = best_id
        barycentrics[b, row] = vec3(one - best[1] - best[2], best[1], best[2])

    @types.kernel
    def query_gradients(
        queries: wp.array2d(dtype=vec3),
        vertices: wp.array2d(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        ids: wp.array2d(dtype=wp.int64),
        barycentrics: wp.array2d(dtype=vec3),
        grad_output: wp.array2d(dtype=scalar),
        gradient: wp.array2d(dtype=vec3),
        max_term: wp.array(dtype=wp.int64),
    ):
        b, i = wp.tid()
        face = int(ids[b, i])
        weights = barycentrics[b, i]
        closest = vec3(zero)
        for corner in range(3):
            closest += weights[corner] * vertices[b, int(faces[face, corner])]
        grad_query = scalar(2.0) * grad_output[b, i] * (queries[b, i] - closest)
        gradient[b, i] = grad_query
        for axis in range(3):
            record_term(wp.float64(grad_query[axis]), max_term)  # barycentrics are at most 1

    @types.kernel
    def scatter(
        gradient: wp.array2d(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        ids: wp.array2d(dtype=wp.int64),
        barycentrics: wp.array2d(dtype=vec3),
        num_vertices: int,
        terms: int,
        max_term: wp.array(dtype=wp.int64),
        totals: wp.array(dtype=wp.int64),
    ):
        b, i = wp.tid()
        exponent = unit_exponent(max_term[0], terms)
        face = int(ids[b, i])
        for corner in range(3):
            term = barycentrics[b, i][corner] * gradient[b, i]
            index = 3 * (b * num_vertices + int(faces[face, corner]))
            for axis in range(3):
                wp.atomic_sub(totals, index + axis, in_units(wp.float64(term[axis]), exponent))

    return SimpleNamespace(search=search, query_gradients=query_gradients, scatter=scatter)
