"""Nearest-neighbor search in a bounding volume hierarchy or by brute force; one thread per query.

Gradients of points are accumulated in fixed point, so that they do not depend on the order of threads.
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

FEW_POINTS, FEW_PAIRS = 1 << 15, 1 << 30
"""Brute force is used up to this many points, and this many pairs of a query and a point."""

SLICED_FROM = 4096
"""From this many points on, the points are divided into slices, with one thread per query and slice."""
THREADS, SMALLEST_SLICE = 1 << 18, 256


def compares_all(num_queries: int, num_points: int, indexed: bool) -> bool:
    return num_points <= FEW_POINTS and num_queries * num_points <= FEW_PAIRS


def num_nodes(num_points: int) -> int:
    return first_node(tree_depth(num_points) + 1)


def build(points: Tensor) -> tuple[Tensor, ...]:
    points = widen(points.detach())
    batch, (count, dim) = points.shape[:-2], points.shape[-2:]
    flat = points.reshape(math.prod(batch), count, dim)
    order = curve_order(flat)
    ordered = flat.gather(1, order[..., None].expand(-1, -1, dim))
    boxes = fit_boxes(ordered, ordered)
    return tuple(t.reshape(*batch, *t.shape[1:]) for t in (ordered, order, boxes))


def forward(
    queries: Tensor, query_order: Tensor, ordered: Tensor, order: Tensor, boxes: Tensor, k: int, norm: int
) -> tuple[Tensor, Tensor]:
    distances = queries.new_full((*queries.shape[:-1], k), torch.inf)
    ids = torch.full(distances.shape, ordered.shape[-2], dtype=torch.int64, device=queries.device)
    tree = [t.contiguous() for t in (query_order, ordered, order, boxes)]
    depth = tree_depth(ordered.shape[-2])
    settings = (depth, first_node(depth), norm, k)
    kernels = nearest_kernels(queries.dtype, ordered.shape[-1])
    launch(kernels.search, _size(queries), widen(queries), *tree, *settings, distances, ids)
    return distances, ids


def compare_all(queries: Tensor, points: Tensor, norm: int) -> tuple[Tensor, Tensor]:
    distances = queries.new_empty(queries.shape[:-1])
    ids = torch.empty(distances.shape, dtype=torch.int64, device=queries.device)
    queries, points = widen(queries), widen(points)
    kernels, (batch, count) = nearest_kernels(queries.dtype, queries.shape[-1]), _size(queries)
    slices = min(THREADS // max(batch * count, 1), points.shape[-2] // SMALLEST_SLICE)
    if points.shape[-2] < SLICED_FROM or slices < 2 or queries.dtype != torch.float32:
        launch(kernels.compare, (batch, count), queries, points, norm, distances, ids)
    else:
        found = torch.full_like(ids, torch.iinfo(torch.int64).max)
        size = -(-points.shape[-2] // slices)
        launch(kernels.compare_slice, (slices, batch, count), queries, points, norm, size, found)
        launch(kernels.unpack, ids.numel(), found, distances, ids)
    return distances[..., None], ids[..., None]


def backward(
    queries: Tensor, points: Tensor, ids: Tensor, grad_output: Tensor, norm: int, needs_points: bool
) -> tuple[Tensor, Tensor | None]:
    dim = points.shape[-1]
    arrays = [widen(queries), widen(points), ids.contiguous(), grad_output.contiguous()]
    query_gradient = torch.empty_like(arrays[0])
    totals = torch.zeros(arrays[1].numel() + 1, dtype=torch.int64, device=points.device)
    totals, max_term = totals[:-1], totals[-1:]
    kernels, terms = nearest_kernels(queries.dtype, arrays[0].shape[-1]), count_log2(ids.numel())
    launch(kernels.query_gradients, _size(queries), *arrays, norm, query_gradient, max_term)
    if not needs_points:
        return query_gradient[..., :dim], None
    launch(kernels.scatter, _size(queries), *arrays, norm, terms, max_term, totals)
    point_gradient = from_sums(totals, max_term, terms, points.dtype).view(arrays[1].shape)
    return query_gradient[..., :dim], point_gradient[..., :dim]


def _size(queries: Tensor) -> tuple[int, int]:
    return math.prod(queries.shape[:-2]), queries.shape[-2]


def widen(points: Tensor) -> Tensor:
    """Pad points with zeros to 3 axes or a power of two, so that few kernels are compiled."""
    dim = points.shape[-1]
    wide = 3 if dim <= 3 else 1 << (dim - 1).bit_length()
    return (torch.nn.functional.pad(points, (0, wide - dim)) if wide > dim else points).contiguous()


@per_precision("nearest")
def nearest_kernels(types: Precision, dim: int) -> SimpleNamespace:
    """Define the kernels for points of `dim` axes."""
    scalar, vector = types.scalar, wp.types.vector(dim, types.scalar)
    nodes, bounds_of_nodes = wp.types.vector(STACK, wp.int32), wp.types.vector(STACK, types.scalar)

    @wp.func
    def measure(offset: vector, norm: int):
        distance = scalar(0.0)
        for axis in range(dim):
            if norm == 1:
                distance += wp.abs(offset[axis])
            else:
                distance += offset[axis] * offset[axis]
        return distance

    @wp.func
    def box_distance(boxes: wp.array3d(dtype=vector), b: int, node: int, query: vector, norm: int):
        outside = wp.max(boxes[b, node, 0] - query, query - boxes[b, node, 1])
        return measure(wp.max(outside, vector(scalar(0.0))), norm)

    @wp.func
    def insert(
        distances: wp.array3d(dtype=scalar),
        ids: wp.array3d(dtype=wp.int64),
        b: int,
        row: int,
        k: int,
        distance: scalar,
        item: wp.int64,
    ):
        """Insert a candidate into the ascending list, ties by the smaller id, dropping the last."""
        i = k - 1
        if distance > distances[b, row, i] or (distance == distances[b, row, i] and item >= ids[b, row, i]):
            return
        while i > 0 and (
            distances[b, row, i - 1] > distance
            or (distances[b, row, i - 1] == distance and ids[b, row, i - 1] > item)
        ):
            distances[b, row, i] = distances[b, row, i - 1]
            ids[b, row, i] = ids[b, row, i - 1]
            i -= 1
        distances[b, row, i] = distance
        ids[b, row, i] = item

    @types.kernel
    def search(
        queries: wp.array2d(dtype=vector),
        query_order: wp.array2d(dtype=wp.int64),
        points: wp.array2d(dtype=vector),
        order: wp.array2d(dtype=wp.int64),
        boxes: wp.array3d(dtype=vector),
        depth: int,
        first_leaf: int,
        norm: int,
        k: int,
        distances: wp.array3d(dtype=scalar),
        ids: wp.array3d(dtype=wp.int64),
    ):
        b, i = wp.tid()
        row = int(query_order[b, i])
        query = queries[b, row]
        worst = scalar(wp.inf)
        stack, bounds = nodes(0), bounds_of_nodes(scalar(0.0))
        top = int(0)
        while top >= 0:
            node = stack[top]
            bound = bounds[top]
            top -= 1
            while (
                bound <= worst and node < first_leaf
            ):  # descend to the nearest leaf, push the other children
                nearest_child = int(0)
                nearest_bound = scalar(wp.inf)
                for c in range(4):
                    child = 4 * node + 1 + c
                    child_bound = box_distance(boxes, b, child, query, norm)
                    if child_bound <= worst:
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
            if node >= first_leaf and bound <= worst:
                leaf = node - first_leaf
                for j in range(
                    leaf_start(leaf, depth, points.shape[1]), leaf_start(leaf + 1, depth, points.shape[1])
                ):
                    distance = measure(query - points[b, j], norm)
                    if distance <= worst:
                        insert(distances, ids, b, row, k, distance, order[b, j])
                        worst = distances[b, row, k - 1]
        for j in range(k):
            if int(ids[b, row, j]) == points.shape[1]:  # NaN coordinates
                ids[b, row, j] = wp.int64(0)
                distances[b, row, j] = scalar(wp.nan)

    @types.kernel
    def compare(
        queries: wp.array2d(dtype=vector),
        points: wp.array2d(dtype=vector),
        norm: int,
        distances: wp.array2d(dtype=scalar),
        ids: wp.array2d(dtype=wp.int64),
    ):
        b, i = wp.tid()
        query = queries[b, i]
        nearest = int(0)
        best = measure(query - points[b, 0], norm)
        for j in range(1, points.shape[1]):
            distance = measure(query - points[b, j], norm)
            if distance < best:
                best = distance
                nearest = j
        distances[b, i] = best
        ids[b, i] = wp.int64(nearest)

    @types.kernel
    def compare_slice(
        queries: wp.array2d(dtype=vector),
        points: wp.array2d(dtype=vector),
        norm: int,
        size: int,
        found: wp.array2d(dtype=wp.int64),
    ):
        """Find the nearest point of a slice: an atomic minimum over its distance, as ordered bits, above its id."""
        slice_index, b, i = wp.tid()
        first, query = slice_index * size, queries[b, i]
        if first >= points.shape[1]:
            return
        nearest = first
        best = measure(query - points[b, first], norm)
        for j in range(first + 1, wp.min(first + size, points.shape[1])):
            distance = measure(query - points[b, j], norm)
            if distance < best:
                best = distance
                nearest = j
        bits = int(0x7FC00000)  # of NaN
        if not wp.isnan(best):
            bits = wp.cast(wp.float32(best), wp.int32)
        wp.atomic_min(found, b, i, (wp.int64(bits) << wp.int64(32)) | wp.int64(nearest))

    @types.kernel
    def unpack(
        found: wp.array(dtype=wp.int64), distances: wp.array(dtype=scalar), ids: wp.array(dtype=wp.int64)
    ):
        i = wp.tid()
        distances[i] = scalar(wp.cast(wp.int32(found[i] >> wp.int64(32)), wp.float32))
        ids[i] = found[i] & wp.int64(0xFFFFFFFF)

    @wp.func
    def distance_gradient(offset: vector, grad_output: scalar, norm: int):
        gradient = vector(scalar(0.0))
        for axis in range(dim):
            if norm == 2:
                gradient[axis] = scalar(2.0) * offset[axis] * grad_output
            elif offset[axis] > scalar(0.0):
                gradient[axis] = grad_output
            elif offset[axis] < scalar(0.0):
                gradient[axis] = -grad_output
        return gradient

    @types.kernel
    def query_gradients(
        queries: wp.array2d(dtype=vector),
        points: wp.array2d(dtype=vector),
        ids: wp.array3d(dtype=wp.int64),
        grad_output: wp.array3d(dtype=scalar),
        norm: int,
        gradient: wp.array2d(dtype=vector),
        max_term: wp.array(dtype=wp.int64),
    ):
        b, i = wp.tid()
        total = vector(scalar(0.0))
        for j in range(ids.shape[2]):
            term = distance_gradient(queries[b, i] - points[b, int(ids[b, i, j])], grad_output[b, i, j], norm)
            total += term
            for axis in range(dim):
                record_term(wp.float64(term[axis]), max_term)
        gradient[b, i] = total

    @types.kernel
    def scatter(
        queries: wp.array2d(dtype=vector),
        points: wp.array2d(dtype=vector),
        ids: wp.array3d(dtype=wp.int64),
        grad_output: wp.array3d(dtype=scalar),
        norm: int,
        terms: int,
        max_term: wp.array(dtype=wp.int64),
        totals: wp.array(dtype=wp.int64),
    ):
        b, i = wp.tid()
        exponent = unit_exponent(max_term[0], terms)
        for j in range(ids.shape[2]):
            point = int(ids[b, i, j])
            term = distance_gradient(queries[b, i] - points[b, point], grad_output[b, i, j], norm)
            for axis in range(dim):
                index = (b * points.shape[1] + point) * dim + axis
                wp.atomic_sub(totals, index, in_units(wp.float64(term[axis]), exponent))

    return SimpleNamespace(
        search=search,
        compare=compare,
        compare_slice=compare_slice,
        unpack=unpack,
        query_gradients=query_gradients,
        scatter=scatter,
    )
