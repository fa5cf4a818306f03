"""A balanced bounding volume hierarchy over points: the spatial index of the CPU kernels.

Node 0 is the root, the children of node i are 2i+1 and 2i+2. Every node holds the items [low, high) of a permutation,
its left child the first half of them. Leaves, the last 2^depth nodes, hold at most `LEAF_SIZE` items. Only the
permutation and the boxes are stored.
"""

import numba
import numpy as np

LEAF_SIZE = 8
MAX_STACK = 64
TOP_LEVELS = 5


def tree_depth(num_items: int) -> int:
    """Return the depth of the tree at which nodes have at most `LEAF_SIZE` items."""
    depth = 0
    while num_items > LEAF_SIZE << depth:
        depth += 1
    return depth


@numba.njit(cache=True)
def leaf_range(leaf, depth, num_items):
    """Return the items [low, high) of the leaf-th leaf."""
    low, high = 0, num_items
    for level in range(depth - 1, -1, -1):
        median = (low + high) // 2
        if (leaf >> level) & 1:
            low = median
        else:
            high = median
    return low, high


@numba.njit(cache=True)
def _swap(points, order, a, b):
    for axis in range(points.shape[1]):
        points[a, axis], points[b, axis] = points[b, axis], points[a, axis]
    order[a], order[b] = order[b], order[a]


@numba.njit(cache=True)
def _split(points, order, low, high):
    """Partition the items [low, high) about their median on the widest axis (Hoare's quickselect)."""
    axis, widest = 0, points.dtype.type(-1)
    for d in range(points.shape[1]):
        smallest = largest = points[low, d]
        for i in range(low + 1, high):
            smallest = min(smallest, points[i, d])
            largest = max(largest, points[i, d])
        if largest - smallest > widest:
            axis, widest = d, largest - smallest
    median = (low + high) // 2
    left, right = low, high - 1
    while left < right:
        a, b, c = points[left, axis], points[(left + right) // 2, axis], points[right, axis]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = left, right
        while i <= j:
            while points[i, axis] < pivot:
                i += 1
            while points[j, axis] > pivot:
                j -= 1
            if i <= j:
                _swap(points, order, i, j)
                i += 1
                j -= 1
        if median <= j:
            right = j
        elif median >= i:
            left = i
        else:
            return


@numba.njit(cache=True, parallel=True)
def sort_points(points, order, depth):
    """Permute `points` and `order` in place into tree order: the top levels node by node, then subtrees in parallel."""
    num_items = len(points)
    top = min(depth, TOP_LEVELS)
    for level in range(top):
        for node in numba.prange(1 << level):
            low, high = leaf_range(node, level, num_items)
            _split(points, order, low, high)
    for subtree in numba.prange(1 << top):
        for level in range(top, depth):
            for node in range(subtree << (level - top), (subtree + 1) << (level - top)):
                low, high = leaf_range(node, level, num_items)
                _split(points, order, low, high)


@numba.njit(cache=True, parallel=True)
def fit_boxes(lows, highs, depth, boxes):
    """Compute the bounding boxes of the nodes [nodes, 2, axes] of items with the boxes lows to highs, in tree order."""
    num_items, num_axes = lows.shape
    num_leaves = 1 << depth
    for leaf in numba.prange(num_leaves):
        low, high = leaf_range(leaf, depth, num_items)
        node = num_leaves - 1 + leaf
        for axis in range(num_axes):
            smallest, largest = np.inf, -np.inf
            for i in range(low, high):
                smallest = min(smallest, lows[i, axis])
                largest = max(largest, highs[i, axis])
            boxes[node, 0, axis] = smallest
            boxes[node, 1, axis] = largest
    for node in range(num_leaves - 2, -1, -1):
        for axis in range(num_axes):
            boxes[node, 0, axis] = min(boxes[2 * node + 1, 0, axis], boxes[2 * node + 2, 0, axis])
            boxes[node, 1, axis] = max(boxes[2 * node + 1, 1, axis], boxes[2 * node + 2, 1, axis])
