"""Potential of charges and dipoles by a tree code (Barnes & Hut 1986), parallel over groups of queries.

A group of queries walks the tree once. A node that is small as seen from the group acts as one charge and one dipole at
its center, else its children or points act. Each source acts on all queries of the group at once, in SIMD lanes.
"""

import math

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._box_tree import MAX_STACK, leaf_range, tree_depth
from unrender.kernels._dispatch import cpu_threads

GROUP_LEVELS = 2
"""A group holds the queries of a node this many levels above the leaves: up to 32."""


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
    depth, query_depth = tree_depth(len(points)), max(0, tree_depth(len(queries)) - GROUP_LEVELS)
    sources = torch.cat([points, charges[order, None], dipoles[order], softening[order, None] ** 2], 1)
    nodes = points.new_empty((2 << depth) - 1, 9)
    sums = queries.new_empty(len(queries), 4)
    with cpu_threads(len(queries)):
        _merge(sources.numpy(), depth, nodes.numpy())
        _evaluate(queries.numpy(), query_depth, sources.numpy(), depth, nodes.numpy(), opening, sums.numpy())
    result = torch.empty_like(sums)
    result[query_order] = sums / (4 * math.pi)
    return result[:, 0], result[:, 1:]


@numba.njit(cache=True, parallel=True)
def _merge(sources, depth, nodes):
    """Compute center, charge, dipole, 0 and radius of each node."""
    count = len(sources)
    for level in range(depth + 1):
        for i in numba.prange(1 << level):
            low, high = leaf_range(i, level, count)
            node = nodes[(1 << level) - 1 + i]
            node[:] = 0
            for j in range(low, high):
                for axis in range(3):
                    node[axis] += sources[j, axis] / (high - low)
            for j in range(low, high):
                node[3] += sources[j, 3]
                squared = node.dtype.type(0)
                for axis in range(3):
                    offset = sources[j, axis] - node[axis]
                    node[4 + axis] += sources[j, 4 + axis] + sources[j, 3] * offset
                    squared += offset * offset
                node[8] = max(node[8], np.sqrt(squared))


@numba.njit(cache=True, inline="always")
def _act(source, x, y, z, sums):
    one, three = x.dtype.type(1), x.dtype.type(3)
    px, py, pz, charge = source[0], source[1], source[2], source[3]
    mx, my, mz, softening = source[4], source[5], source[6], source[7]
    for i in range(len(x)):
        dx, dy, dz = x[i] - px, y[i] - py, z[i] - pz
        squared = dx * dx + dy * dy + dz * dz + softening
        inverse_squared = one / squared if squared > 0 else x.dtype.type(0)
        inverse = np.sqrt(inverse_squared)
        cubed = inverse * inverse_squared
        along = mx * dx + my * dy + mz * dz
        radial = charge * cubed + three * along * cubed * inverse_squared
        sums[0, i] += charge * inverse + along * cubed
        sums[1, i] += mx * cubed - radial * dx
        sums[2, i] += my * cubed - radial * dy
        sums[3, i] += mz * cubed - radial * dz


@numba.njit(cache=True, parallel=True)
def _evaluate(queries, query_depth, sources, depth, nodes, opening, result):
    first_leaf = (1 << depth) - 1
    for group in numba.prange(1 << query_depth):
        low, high = leaf_range(group, query_depth, len(queries))
        if low < high:
            x, y, z = queries[low:high, 0].copy(), queries[low:high, 1].copy(), queries[low:high, 2].copy()
            cx, cy, cz = x.mean(), y.mean(), z.mean()
            extent = np.sqrt(((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2).max())
            sums = np.zeros((4, high - low), queries.dtype)
            stack = np.empty(MAX_STACK, np.int64)
            top = 0
            stack[0] = 0
            while top >= 0:
                node = stack[top]
                top -= 1
                dx, dy, dz = nodes[node, 0] - cx, nodes[node, 1] - cy, nodes[node, 2] - cz
                distance = np.sqrt(dx * dx + dy * dy + dz * dz) - extent
                if nodes[node, 8] < opening * distance:
                    _act(nodes[node], x, y, z, sums)
                elif node < first_leaf:
                    stack[top + 1], stack[top + 2] = 2 * node + 2, 2 * node + 1
                    top += 2
                else:
                    start, end = leaf_range(node - first_leaf, depth, len(sources))
                    for j in range(start, end):
                        _act(sources[j], x, y, z, sums)
            result[low:high] = sums.T
