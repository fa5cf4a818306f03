"""A bounding volume hierarchy over items sorted along a Morton curve: the spatial index of the GPU kernels.

The curve is cut into 4^depth leaves of equal size, `LEAF_SIZE` items at most; the children of node i are 4i+1 to 4i+4,
and node 0 is the root. Only the order of the items and the boxes are stored.
"""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision

LEAF_SIZE = 8
MAX_DEPTH = 14
STACK = 3 * MAX_DEPTH + 1
"""Maximum stack size of a depth-first search: three nodes on each level, and the root."""


def tree_depth(num_items: int) -> int:
    """Return the depth of the tree at which nodes have at most `LEAF_SIZE` items."""
    depth = 0
    while num_items > LEAF_SIZE << 2 * depth:
        depth += 1
    return depth


def first_node(depth: int) -> int:
    """Return the index of the first node of a level, which is the number of nodes above it."""
    return ((1 << 2 * depth) - 1) // 3


def curve_order(points: Tensor) -> Tensor:
    """Return the order [batch, points] of points [batch, points, dim] along a Morton curve through their first axes."""
    batch, count, dim = points.shape
    if points.numel() == 0:
        return torch.zeros(batch, count, dtype=torch.int64, device=points.device)
    kernels = tree_kernels(points.dtype, dim)
    low, high = points.aminmax(dim=1)
    codes = torch.empty(batch, count, dtype=torch.int32, device=points.device)
    launch(kernels.encode, (batch, count), points, low, high, codes)
    order: Tensor = codes.sort(dim=-1, stable=True).indices
    return order


def fit_boxes(lows: Tensor, highs: Tensor) -> Tensor:
    """Return the bounding boxes of nodes [batch, nodes, 2, axes] of items in tree order with boxes lows to highs."""
    batch, count, dim = lows.shape
    depth = tree_depth(count)
    boxes = lows.new_empty(batch, first_node(depth + 1), 2, dim)
    kernels = tree_kernels(lows.dtype, dim)
    launch(kernels.fit_leaves, (batch, 1 << 2 * depth), lows, highs, depth, boxes)
    for level in range(depth - 1, -1, -1):
        launch(kernels.fit_nodes, (batch, 1 << 2 * level), first_node(level), boxes)
    return boxes


@wp.func
def leaf_start(leaf: int, depth: int, num_items: int) -> int:
    """Return the first item of a leaf."""
    return int((wp.int64(leaf) * wp.int64(num_items)) >> wp.int64(2 * depth))


@wp.func
def spread_bits(value: int, gap: int) -> int:
    """Insert `gap` zeros after each of the lowest bits of a number."""
    spread = int(0)
    for bit in range(30 // (gap + 1)):
        spread = spread | (((value >> bit) & 1) << (bit * (gap + 1)))
    return spread


@per_precision("tree")
def tree_kernels(types: Precision, dim: int) -> SimpleNamespace:
    """Define the kernels that build trees over points of `dim` axes."""
    scalar, vector = types.scalar, wp.types.vector(dim, types.scalar)
    curve_axes = min(dim, 3)
    cells = (1 << 30 // curve_axes) - 1
    scale = scalar(cells)

    @types.kernel
    def encode(
        points: wp.array2d(dtype=vector),
        low: wp.array(dtype=vector),
        high: wp.array(dtype=vector),
        codes: wp.array2d(dtype=wp.int32),
    ):
        b, i = wp.tid()
        code = int(0)
        for axis in range(curve_axes):
            extent = high[b][axis] - low[b][axis]
            if extent > scalar(0.0):
                position = (points[b, i][axis] - low[b][axis]) / extent * scale
                code = code | (spread_bits(wp.clamp(int(position), 0, cells), curve_axes - 1) << axis)
        codes[b, i] = code

    @types.kernel
    def fit_leaves(
        lows: wp.array2d(dtype=vector),
        highs: wp.array2d(dtype=vector),
        depth: int,
        boxes: wp.array3d(dtype=vector),
    ):
        b, leaf = wp.tid()
        count = lows.shape[1]
        low, high = vector(scalar(wp.inf)), vector(-scalar(wp.inf))
        for i in range(leaf_start(leaf, depth, count), leaf_start(leaf + 1, depth, count)):
            low, high = wp.min(low, lows[b, i]), wp.max(high, highs[b, i])
        node = ((1 << (2 * depth)) - 1) // 3 + leaf
        boxes[b, node, 0] = low
        boxes[b, node, 1] = high

    @types.kernel
    def fit_nodes(first: int, boxes: wp.array3d(dtype=vector)):
        b, i = wp.tid()
        node = first + i
        low, high = vector(scalar(wp.inf)), vector(-scalar(wp.inf))
        for child in range(1, 5):
            low = wp.min(low, boxes[b, 4 * node + child, 0])
            high = wp.max(high, boxes[b, 4 * node + child, 1])
        boxes[b, node, 0] = low
        boxes[b, node, 1] = high

    return SimpleNamespace(encode=encode, fit_leaves=fit_leaves, fit_nodes=fit_nodes)
