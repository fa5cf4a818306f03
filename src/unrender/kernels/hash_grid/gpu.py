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

from unrender.kernels._fixed_point import from_sums, greatest_of
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
    kernels, known = _kernels(table.dtype, table.shape[1]), level_rows(levels, table.device)
    found = table.new_empty(len(known) * table.shape[1], len(points))
    size = (len(known), len(points))
    launch(kernels.look_up, size, points.contiguous(), kernels.rows(table), known, found)
    return found.mT


def backward(
    points: Tensor, table: Tensor, levels: HashLevels, cotangent: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Compute the gradients of points and table that are `wanted`."""
    kernels, known = _kernels(table.dtype, table.shape[1]), level_rows(levels, table.device)
    slopes, places = cotangent.mT.contiguous(), points.contiguous()
    to_points = to_table = None
    if wanted[0]:
        to_points = torch.empty_like(places)
        launch(kernels.to_points, len(points), places, kernels.rows(table), known, slopes, to_points)
    if wanted[1]:
        greatest, bits = greatest_of(slopes), count_log2(len(points))
        sums = torch.zeros(table.shape, dtype=torch.int64, device=table.device)
        size = (len(known), 2 * table.shape[1] * len(points))
        launch(kernels.to_table, size, places, known, slopes, greatest, bits, sums)
        to_table = from_sums(sums, greatest, bits, table.dtype)
    return to_points, to_table


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
    """Make the functions of one precision that tell where in a level a point is."""
    vec3 = wp.types.vector(3, scalar)

    @wp.func
    def inside(p: vec3):
        low, high = scalar(0.0), scalar(1.0)
        return p[0] >= low and p[0] <= high and p[1] >= low and p[1] <= high and p[2] >= low and p[2] <= high

    @wp.func
    def cell_of(place: vec3, side: int):
        last = side - 1
        return wp.vec3i(
            wp.min(int(wp.floor(place[0])), last),
            wp.min(int(wp.floor(place[1])), last),
            wp.min(int(wp.floor(place[2])), last),
        )

    @wp.func
    def share(part: vec3, corner: int):
        one = scalar(1.0)
        u = wp.where((corner & 1) == 1, part[0], one - part[0])
        v = wp.where(((corner >> 1) & 1) == 1, part[1], one - part[1])
        w = wp.where((corner >> 2) == 1, part[2], one - part[2])
        return u * v * w

    return SimpleNamespace(inside=inside, cell_of=cell_of, share=share)


@per_precision("hash_grid")
def _kernels(precision: Precision, features: int) -> SimpleNamespace:
    scalar, vec3 = precision.scalar, precision.vec3
    row = wp.types.vector(features, scalar)
    points_of = point_functions(scalar)
    inside, cell_of, share = points_of.inside, points_of.cell_of, points_of.share
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
    def look_up(
        points: wp.array(dtype=vec3),
        table: wp.array(dtype=stored),
        levels: wp.array(dtype=wp.vec4i),
        found: wp.array2d(dtype=scalar),
    ):
        n, i = wp.tid()
        level, p, mixed = levels[n], points[i], row()
        if inside(p):
            place = p * scalar(level[0])
            cell = cell_of(place, level[0])
            part = place - vec3(scalar(cell[0]), scalar(cell[1]), scalar(cell[2]))
            for corner in range(8):
                mixed += share(part, corner) * read(table, entry_of(cell, corner, level))
        for f in range(wp.static(features)):
            found[n * wp.static(features) + f, i] = mixed[f]

    @precision.kernel
    def to_points(
        points: wp.array(dtype=vec3),
        table: wp.array(dtype=stored),
        levels: wp.array(dtype=wp.vec4i),
        slopes: wp.array2d(dtype=scalar),
        found: wp.array(dtype=vec3),
    ):
        i = wp.tid()
        p, total, one = points[i], vec3(), scalar(1.0)
        if inside(p):
            for n in range(levels.shape[0]):
                level = levels[n]
                place = p * scalar(level[0])
                cell = cell_of(place, level[0])
                part = place - vec3(scalar(cell[0]), scalar(cell[1]), scalar(cell[2]))
                for corner in range(8):
                    entry, value = read(table, entry_of(cell, corner, level)), scalar(0.0)
                    for f in range(wp.static(features)):
                        value += slopes[n * wp.static(features) + f, i] * entry[f]
                    value *= scalar(level[0])
                    x, y, z = (corner & 1) == 1, ((corner >> 1) & 1) == 1, (corner >> 2) == 1
                    u = wp.where(x, part[0], one - part[0])
                    v = wp.where(y, part[1], one - part[1])
                    w = wp.where(z, part[2], one - part[2])
                    total += vec3(
                        wp.where(x, value, -value) * v * w,
                        wp.where(y, value, -value) * u * w,
                        wp.where(z, value, -value) * u * v,
                    )
        found[i] = total

    @precision.kernel
    def to_table(
        points: wp.array(dtype=vec3),
        levels: wp.array(dtype=wp.vec4i),
        slopes: wp.array2d(dtype=scalar),
        greatest: wp.array(dtype=wp.int64),
        bits: int,
        sums: wp.array2d(dtype=wp.int64),
    ):
        """Add the gradients of one feature at the corners of one side in x.

        Such threads of one point are beside each other: where x is even, the entries of both sides are neighbors, and
        what they add at a time is one access to memory.
        """
        n, thread = wp.tid()
        i, lane = thread // wp.static(2 * features), thread % wp.static(2 * features)
        right, feature = lane // wp.static(features), lane % wp.static(features)
        level, p = levels[n], points[i]
        if inside(p):
            place = p * scalar(level[0])
            cell = cell_of(place, level[0])
            part = place - vec3(scalar(cell[0]), scalar(cell[1]), scalar(cell[2]))
            scale = power_of_two(-unit_exponent(greatest[0], bits))
            slope = scalar(wp.float64(slopes[n * wp.static(features) + feature, i]) * scale)
            if slope != scalar(0.0):
                for side in range(4):
                    corner = right + 2 * side
                    share_of_slope = wp.int64(share(part, corner) * slope)
                    wp.atomic_add(sums, entry_of(cell, corner, level), feature, share_of_slope)

    return SimpleNamespace(look_up=look_up, to_points=to_points, to_table=to_table, rows=rows)
