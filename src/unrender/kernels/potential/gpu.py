"""Potential of charges and dipoles by a tree code (Barnes & Hut 1986): one thread per query.

A node that is small as seen from the query acts as one charge and one dipole at its center, else its children or points
act, in a fixed order.
"""

import math
from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision
from unrender.kernels._warp_tree import STACK, first_node, leaf_start, tree_depth


def forward(
    queries: Tensor,
    query_order: Tensor,
    points: Tensor,
    order: Tensor,
    charges: Tensor,
    dipoles: Tensor,
    softening: Tensor,
    opening: float,
) -> tuple[Tensor, Tensor]:
    """Evaluate at queries; queries and points are in tree order, and `order` maps it to the given order."""
    depth, kernels = tree_depth(len(points)), potential_kernels(points.dtype)
    sources = torch.cat([points, charges[order, None], dipoles[order], softening[order, None] ** 2], 1)
    nodes, radii = points.new_empty(first_node(depth + 1), 8), points.new_empty(first_node(depth + 1))
    pairs = [t.view(-1, 2, 4) for t in (sources, nodes)]
    launch(kernels.merge_points, 1 << 2 * depth, pairs[0], depth, pairs[1], radii)
    for level in range(depth - 1, -1, -1):
        launch(kernels.merge_nodes, 1 << 2 * level, first_node(level), level, len(points), pairs[1], radii)
    values, gradients = queries.new_empty(len(queries)), queries.new_empty(len(queries), 3)
    arrays = (queries.contiguous(), query_order.contiguous(), *pairs, radii)
    launch(kernels.evaluate, len(queries), *arrays, depth, opening, values, gradients)
    return values, gradients


@per_precision("potential")
def potential_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels.

    A source is a point and its charge, then its dipole and its squared softening. So is a node, at the mean of its
    points, with the mean of their squared softenings; all of them are within its radius.
    """
    scalar, vec3, vec4 = types.scalar, types.vec3, types.vec4
    stack_of = wp.types.vector(STACK, wp.int32)
    zero, one, three, unit = scalar(0.0), scalar(1.0), scalar(3.0), scalar(1 / (4 * math.pi))

    @wp.func
    def xyz(v: vec4):
        return vec3(v[0], v[1], v[2])

    @wp.func
    def read(rows: wp.array2d(dtype=vec4), row: int, part: int):
        return rows[row, part]

    @types.kernel
    def merge_points(
        sources: wp.array2d(dtype=vec4),
        depth: int,
        nodes: wp.array2d(dtype=vec4),
        radii: wp.array(dtype=scalar),
    ):
        leaf = wp.tid()
        low, high = leaf_start(leaf, depth, sources.shape[0]), leaf_start(leaf + 1, depth, sources.shape[0])
        center, dipole = vec3(scalar(0.0)), vec3(scalar(0.0))
        charge, softening, squared = scalar(0.0), scalar(0.0), scalar(0.0)
        for j in range(low, high):
            center += xyz(sources[j, 0]) / scalar(high - low)
            softening += sources[j, 1][3] / scalar(high - low)
        for j in range(low, high):
            offset = xyz(sources[j, 0]) - center
            charge += sources[j, 0][3]
            dipole += xyz(sources[j, 1]) + sources[j, 0][3] * offset
            squared = wp.max(squared, wp.dot(offset, offset))
        node = ((1 << (2 * depth)) - 1) // 3 + leaf
        nodes[node, 0] = vec4(center[0], center[1], center[2], charge)
        nodes[node, 1] = vec4(dipole[0], dipole[1], dipole[2], softening)
        radii[node] = wp.sqrt(squared)

    @types.kernel
    def merge_nodes(
        first: int, level: int, num_points: int, nodes: wp.array2d(dtype=vec4), radii: wp.array(dtype=scalar)
    ):
        i = wp.tid()
        node = first + i
        total = scalar(leaf_start(i + 1, level, num_points) - leaf_start(i, level, num_points))
        center, dipole = vec3(scalar(0.0)), vec3(scalar(0.0))
        charge, softening, radius = scalar(0.0), scalar(0.0), scalar(0.0)
        for c in range(4):
            begin, end = 4 * i + c, 4 * i + c + 1
            count = leaf_start(end, level + 1, num_points) - leaf_start(begin, level + 1, num_points)
            fraction = scalar(count) / total
            center += fraction * xyz(read(nodes, 4 * node + 1 + c, 0))
            softening += fraction * read(nodes, 4 * node + 1 + c, 1)[3]
        for c in range(4):
            child, moments = read(nodes, 4 * node + 1 + c, 0), read(nodes, 4 * node + 1 + c, 1)
            offset = xyz(child) - center
            charge += child[3]
            dipole += xyz(moments) + child[3] * offset
            radius = wp.max(radius, wp.length(offset) + radii[4 * node + 1 + c])
        nodes[node, 0] = vec4(center[0], center[1], center[2], charge)
        nodes[node, 1] = vec4(dipole[0], dipole[1], dipole[2], softening)
        radii[node] = radius

    @wp.func
    def act(offset: vec3, charge: scalar, dipole: vec3, softening: scalar):
        """Return the potential of a charge and a dipole, and its gradient."""
        squared, inverse_squared = wp.dot(offset, offset) + softening, scalar(0.0)
        if squared > zero:
            inverse_squared = one / squared
        inverse = wp.sqrt(inverse_squared)
        cubed, along = inverse * inverse_squared, wp.dot(dipole, offset)
        gradient = cubed * dipole - (charge * cubed + three * along * cubed * inverse_squared) * offset
        return vec4(charge * inverse + along * cubed, gradient[0], gradient[1], gradient[2])

    @types.kernel
    def evaluate(
        queries: wp.array(dtype=vec3),
        query_order: wp.array(dtype=wp.int64),
        sources: wp.array2d(dtype=vec4),
        nodes: wp.array2d(dtype=vec4),
        radii: wp.array(dtype=scalar),
        depth: int,
        opening: scalar,
        values: wp.array(dtype=scalar),
        gradients: wp.array(dtype=vec3),
    ):
        i = wp.tid()
        query, first_leaf = queries[i], ((1 << (2 * depth)) - 1) // 3
        stack, total = stack_of(0), vec4(zero)
        top = int(0)
        while top >= 0:
            node = stack[top]
            top -= 1
            center, moments = read(nodes, node, 0), read(nodes, node, 1)
            offset = query - xyz(center)
            if radii[node] < opening * (wp.length(offset) - radii[node]):
                total += act(offset, center[3], xyz(moments), moments[3])
            elif node < first_leaf:
                for c in range(4):
                    stack[top + 4 - c] = 4 * node + 1 + c
                top += 4
            else:
                leaf = node - first_leaf
                start, end = (
                    leaf_start(leaf, depth, sources.shape[0]),
                    leaf_start(leaf + 1, depth, sources.shape[0]),
                )
                for j in range(start, end):
                    point, source = read(sources, j, 0), read(sources, j, 1)
                    total += act(query - xyz(point), point[3], xyz(source), source[3])
        row = int(query_order[i])
        values[row] = unit * total[0]
        gradients[row] = unit * vec3(total[1], total[2], total[3])

    return SimpleNamespace(merge_points=merge_points, merge_nodes=merge_nodes, evaluate=evaluate)
