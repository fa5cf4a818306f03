"""Multiresolution hash encoding: one thread per level of each point, level by level.

The entries of one level stay in the cache, and writes are coalesced, since features are stored feature by feature.
Gradients of the table are accumulated in 64-bit fixed point, so that they do not depend on the order of threads.
"""

import functools
from types import SimpleNamespace
from typing import Any

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._fixed_point import from_sums, max_magnitude
from unrender.kernels._warp import (
    Precision,
    count_log2,
    launch,
    per_precision,
    power_of_two,
    unit_exponent,
)
from unrender.kernels.hash_grid.levels import HashLevels
from unrender.kernels.hash_grid.reference import PRIMES

PRIME_Y, PRIME_Z = wp.constant(wp.uint32(PRIMES[1])), wp.constant(wp.uint32(PRIMES[2]))


def forward(points: Tensor, table: Tensor, levels: HashLevels) -> Tensor:
    kernels, level_table = _kernels(table.dtype, table.shape[1]), level_rows(levels, table.device)
    features_out = table.new_empty(len(level_table) * table.shape[1], len(points))
    size = (len(level_table), len(points))
    launch(kernels.encode, size, points.contiguous(), kernels.rows(table), level_table, features_out)
    return features_out.mT


def backward(
    points: Tensor, table: Tensor, levels: HashLevels, grad_output: Tensor, needs_grad: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Compute the gradients of points and table for which `needs_grad` is true."""
    kernels, level_table = _kernels(table.dtype, table.shape[1]), level_rows(levels, table.device)
    grad_output, positions = grad_output.mT.contiguous(), points.contiguous()
    grad_points = grad_table = None
    if needs_grad[0]:
        grad_points = torch.empty_like(positions)
        launch(
            kernels.grad_points,
            len(points),
            positions,
            kernels.rows(table),
            level_table,
            grad_output,
            grad_points,
        )
    if needs_grad[1]:
        max_term, bits = max_magnitude(grad_output), count_log2(len(points))
        sums = torch.zeros(table.shape, dtype=torch.int64, device=table.device)
        size = (len(level_table), 2 * table.shape[1] * len(points))
        launch(kernels.grad_table, size, positions, level_table, grad_output, max_term, bits, sums)
        grad_table = from_sums(sums, max_term, bits, table.dtype)
    return grad_points, grad_table


@functools.lru_cache(64)
def level_rows(levels: HashLevels, device: torch.device) -> Tensor:
    """Return, for each level, its resolution, whether it is hashed, its offset, and its number of entries minus one."""
    ends = zip(levels.resolutions, levels.hashed, levels.offsets, levels.offsets[1:], strict=False)
    rows = [(side, int(hashed), begin, end - begin - 1) for side, hashed, begin, end in ends]
    return torch.tensor(rows, dtype=torch.int32, device=device)


@wp.func
def entry_of(cell: wp.vec3i, corner: int, level: wp.vec4i):
    """Return the entry of one of a cell's eight corners, of which x changes fastest."""
    x = wp.uint32(cell[0] + (corner & 1))
    y = wp.uint32(cell[1] + ((corner >> 1) & 1))
    z = wp.uint32(cell[2] + (corner >> 2))
    if level[1] == 0:
        row = wp.uint32(level[0] + 1)
        return level[2] + wp.int32(x + row * (y + row * z))
    return level[2] + wp.int32((x ^ (y * PRIME_Y) ^ (z * PRIME_Z)) & wp.uint32(level[3]))


@functools.cache
def point_functions(scalar: Any) -> SimpleNamespace:
    """Make the functions of one precision that locate a point in a level."""
    vec3 = wp.types.vector(3, scalar)

    @wp.func
    def inside(p: vec3):
        low, high = scalar(0.0), scalar(1.0)
        return p[0] >= low and p[0] <= high and p[1] >= low and p[1] <= high and p[2] >= low and p[2] <= high

    @wp.func
    def cell_of(position: vec3, side: int):
        last = side - 1
        return wp.vec3i(
            wp.min(int(wp.floor(position[0])), last),
            wp.min(int(wp.floor(position[1])), last),
            wp.min(int(wp.floor(position[2])), last),
        )

    @wp.func
    def corner_weight(fraction: vec3, corner: int):
        one = scalar(1.0)
        u = wp.where((corner & 1) == 1, fraction[0], one - fraction[0])
        v = wp.where(((corner >> 1) & 1) == 1, fraction[1], one - fraction[1])
        w = wp.where((corner >> 2) == 1, fraction[2], one - fraction[2])
        return u * v * w

    return SimpleNamespace(inside=inside, cell_of=cell_of, corner_weight=corner_weight)


@per_precision("hash_grid")
def _kernels(precision: Precision, features: int) -> SimpleNamespace:
    scalar, vec3 = precision.scalar, precision.vec3
    row = wp.types.vector(features, scalar)
    points_of = point_functions(scalar)
    inside, cell_of, corner_weight = points_of.inside, points_of.cell_of, points_of.corner_weight
    pairs = scalar is wp.float32 and features == 2
    stored = wp.int64 if pairs else row

    def rows(table: Tensor) -> Tensor:
        flat = table.detach().contiguous()
        return flat.view(torch.int64) if pairs else flat

    if pairs:  # a load of 8 bytes takes half of the time of two of 4

        @wp.func
        def read(table: wp.array(dtype=stored), entry: int):
            bits = wp.uint64(table[entry])
            return row(
                wp.cast(wp.uint32(bits & wp.uint64(0xFFFFFFFF)), wp.float32),
                wp.cast(wp.uint32(bits >> wp.uint64(32)), wp.float32),
            )

    else:

        @wp.func
        def read(table: wp.array(dtype=stored), entry: int):
            return table[entry]

    @precision.kernel
    def encode(
        points: wp.array(dtype=vec3),
        table: wp.array(dtype=stored),
        levels: wp.array(dtype=wp.vec4i),
        features_out: wp.array2d(dtype=scalar),
    ):
        n, i = wp.tid()
        level, p, mixed = levels[n], points[i], row()
        if inside(p):
            position = p * scalar(level[0])
            cell = cell_of(position, level[0])
            fraction = position - vec3(scalar(cell[0]), scalar(cell[1]), scalar(cell[2]))
            for corner in range(8):
                mixed += corner_weight(fraction, corner) * read(table, entry_of(cell, corner, level))
        for f in range(wp.static(features)):
            features_out[n * wp.static(features) + f, i] = mixed[f]

    @precision.kernel
    def grad_points(
        points: wp.array(dtype=vec3),
        table: wp.array(dtype=stored),
        levels: wp.array(dtype=wp.vec4i),
        grad_output: wp.array2d(dtype=scalar),
        features_out: wp.array(dtype=vec3),
    ):
        i = wp.tid()
        p, total, one = points[i], vec3(), scalar(1.0)
        if inside(p):
            for n in range(levels.shape[0]):
                level = levels[n]
                position = p * scalar(level[0])
                cell = cell_of(position, level[0])
                fraction = position - vec3(scalar(cell[0]), scalar(cell[1]), scalar(cell[2]))
                for corner in range(8):
                    entry, value = read(table, entry_of(cell, corner, level)), scalar(0.0)
                    for f in range(wp.static(features)):
                        value += grad_output[n * wp.static(features) + f, i] * entry[f]
                    value *= scalar(level[0])
                    x, y, z = (corner & 1) == 1, ((corner >> 1) & 1) == 1, (corner >> 2) == 1
                    u = wp.where(x, fraction[0], one - fraction[0])
                    v = wp.where(y, fraction[1], one - fraction[1])
                    w = wp.where(z, fraction[2], one - fraction[2])
                    total += vec3(
                        wp.where(x, value, -value) * v * w,
                        wp.where(y, value, -value) * u * w,
                        wp.where(z, value, -value) * u * v,
                    )
        features_out[i] = total

    @precision.kernel
    def grad_table(
        points: wp.array(dtype=vec3),
        levels: wp.array(dtype=wp.vec4i),
        grad_output: wp.array2d(dtype=scalar),
        max_term: wp.array(dtype=wp.int64),
        bits: int,
        sums: wp.array2d(dtype=wp.int64),
    ):
        """Add the gradients of one feature at the corners of one side in x.

        The threads of one point are adjacent: where x is even, the entries of both sides are neighbors, and their
        additions are one memory access.
        """
        n, thread = wp.tid()
        i, lane = thread // wp.static(2 * features), thread % wp.static(2 * features)
        right, feature = lane // wp.static(features), lane % wp.static(features)
        level, p = levels[n], points[i]
        if inside(p):
            position = p * scalar(level[0])
            cell = cell_of(position, level[0])
            fraction = position - vec3(scalar(cell[0]), scalar(cell[1]), scalar(cell[2]))
            scale = power_of_two(-unit_exponent(max_term[0], bits))
            scaled_grad = scalar(wp.float64(grad_output[n * wp.static(features) + feature, i]) * scale)
            if scaled_grad != scalar(0.0):
                for side in range(4):
                    corner = right + 2 * side
                    term = wp.int64(corner_weight(fraction, corner) * scaled_grad)
                    wp.atomic_add(sums, entry_of(cell, corner, level), feature, term)

    return SimpleNamespace(encode=encode, grad_points=grad_points, grad_table=grad_table, rows=rows)
