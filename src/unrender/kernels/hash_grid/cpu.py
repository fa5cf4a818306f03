"""Multiresolution hash encoding, level by level, so that the entries of one level stay in the cache.

Blocks of points are processed in three passes: compute corners and weights (vectorized), load the entries (nothing but
loads, so that many are in flight), interpolate (vectorized). In the backward pass each level belongs to one thread:
entries accumulate gradients in the order of the points, for any number of threads. Entries are prefetched some points
in advance to hide the latency of read-modify-write.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._batch import allocate, array
from unrender.kernels._dispatch import cpu_threads
from unrender.kernels._llvm.prefetch import prefetch
from unrender.kernels._llvm.queue import new_queue, next_task
from unrender.kernels.hash_grid.levels import HashLevels
from unrender.kernels.hash_grid.reference import PRIMES

BLOCK = 256
"""Points per block. Each intermediate value is stored in one array, BLOCK numbers per component, so that the compiler
can prove that components do not overlap, and vectorize."""
CHUNK = 8192
"""Points of one level per task."""
PRIME_Y, PRIME_Z = np.uint32(PRIMES[1]), np.uint32(PRIMES[2])
PREFETCH_DISTANCE = 12
"""Number of points by which entries are prefetched in advance."""
RELAXED = {"contract", "reassoc", "nsz"}


def forward(points: Tensor, table: Tensor, levels: HashLevels) -> Tensor:
    features = allocate(table, len(levels.resolutions) * table.shape[1], len(points))
    with cpu_threads(len(points) * len(levels.resolutions)):
        _encode(array(points), array(table), *_arrays(levels), features.numpy(), *new_queue())
    return features.mT


def backward(
    points: Tensor, table: Tensor, levels: HashLevels, grad_output: Tensor, needs_grad: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Compute the gradients of points and table for which `needs_grad` is true."""
    grad_points = grad_table = None
    positions, gradients = array(points), array(grad_output.mT)
    with cpu_threads(len(points) * len(levels.resolutions)):
        if needs_grad[0]:
            grad_points = allocate(points, *points.shape)
            _point_gradient(
                positions, array(table), *_arrays(levels), gradients, grad_points.numpy(), *new_queue()
            )
        if needs_grad[1]:
            sums = np.zeros(table.shape, positions.dtype)  # pages are zeroed lazily by the system
            _scatter(positions, *_arrays(levels), gradients, sums, *new_queue())
            grad_table = torch.from_numpy(sums)
    return grad_points, grad_table


def _arrays(levels):
    return np.array(levels.resolutions), np.array(levels.hashed), np.array(levels.offsets)


@numba.njit(cache=True, error_model="numpy")
def _scratch(kinds, like):
    return np.empty(kinds * BLOCK, like.dtype)


@numba.njit(cache=True, error_model="numpy", fastmath=RELAXED)
def _locate(points, side, cells, fractions):
    """Fill the cell of each point and the fractions within it; the fourth value is 1, or 0 for points outside."""
    zero, one = points.dtype.type(0), points.dtype.type(1)
    size, last = points.dtype.type(side), points.dtype.type(side - 1)
    for p in range(np.uint64(len(points))):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        inside = (x >= zero) & (x <= one) & (y >= zero) & (y <= one) & (z >= zero) & (z <= one)
        x, y, z = x * size if inside else zero, y * size if inside else zero, z * size if inside else zero
        i, j, k = np.floor(x), np.floor(y), np.floor(z)
        i, j, k = i if i < last else last, j if j < last else last, k if k < last else last
        cells[p], cells[BLOCK + p], cells[2 * BLOCK + p] = np.int32(i), np.int32(j), np.int32(k)
        fractions[p], fractions[BLOCK + p], fractions[2 * BLOCK + p] = x - i, y - j, z - k
        fractions[3 * BLOCK + p] = one if inside else zero


@numba.njit(cache=True, error_model="numpy")
def _find_entries(count, cells, side, hashed, mask, entries):
    """Fill the table entries of the eight corners of each cell, x changing fastest."""
    one, row = np.uint32(1), np.uint32(side + 1)
    layer = np.uint32(row * row)
    if hashed:
        for p in range(np.uint64(count)):
            x, y, z = np.uint32(cells[p]), np.uint32(cells[BLOCK + p]), np.uint32(cells[2 * BLOCK + p])
            y0, z0 = np.uint32(y * PRIME_Y), np.uint32(z * PRIME_Z)
            y1, z1 = np.uint32(y0 + PRIME_Y), np.uint32(z0 + PRIME_Z)
            x1 = np.uint32(x + one)
            entries[p], entries[BLOCK + p] = (x ^ y0 ^ z0) & mask, (x1 ^ y0 ^ z0) & mask
            entries[2 * BLOCK + p], entries[3 * BLOCK + p] = (x ^ y1 ^ z0) & mask, (x1 ^ y1 ^ z0) & mask
            entries[4 * BLOCK + p], entries[5 * BLOCK + p] = (x ^ y0 ^ z1) & mask, (x1 ^ y0 ^ z1) & mask
            entries[6 * BLOCK + p], entries[7 * BLOCK + p] = (x ^ y1 ^ z1) & mask, (x1 ^ y1 ^ z1) & mask
    else:
        for p in range(np.uint64(count)):
            x, y, z = np.uint32(cells[p]), np.uint32(cells[BLOCK + p]), np.uint32(cells[2 * BLOCK + p])
            first = np.uint32(x + np.uint32(y * row) + np.uint32(z * layer))
            entries[p], entries[BLOCK + p] = first, first + one
            entries[2 * BLOCK + p], entries[3 * BLOCK + p] = first + row, first + row + one
            entries[4 * BLOCK + p], entries[5 * BLOCK + p] = first + layer, first + layer + one
            entries[6 * BLOCK + p], entries[7 * BLOCK + p] = first + layer + row, first + layer + row + one


@numba.njit(cache=True, error_model="numpy", fastmath=RELAXED)
def _find_weights(count, fractions, weights):
    """Fill the interpolation weights of the eight corners; 0 for points outside."""
    one = fractions.dtype.type(1)
    for p in range(np.uint64(count)):
        u, v, w, inside = (
            fractions[p],
            fractions[BLOCK + p],
            fractions[2 * BLOCK + p],
            fractions[3 * BLOCK + p],
        )
        low, high = inside * (one - w), inside * w
        a, b, c, d = low * (one - v), low * v, high * (one - v), high * v
        weights[p], weights[BLOCK + p] = a - a * u, a * u
        weights[2 * BLOCK + p], weights[3 * BLOCK + p] = b - b * u, b * u
        weights[4 * BLOCK + p], weights[5 * BLOCK + p] = c - c * u, c * u
        weights[6 * BLOCK + p], weights[7 * BLOCK + p] = d - d * u, d * u


@numba.njit(cache=True, error_model="numpy")
def _fetch(count, entries, level, num_features, fetched):
    """Load the features of the entries of one level, corner by corner."""
    if num_features == 2:
        for q in range(np.uint64(8)):
            for p in range(q * BLOCK, q * BLOCK + np.uint64(count)):
                at = np.uint64(entries[p]) * np.uint64(2)
                fetched[p], fetched[8 * BLOCK + p] = level[at], level[at + np.uint64(1)]
    else:
        for q in range(np.uint64(8)):
            for p in range(q * BLOCK, q * BLOCK + np.uint64(count)):
                at = np.uint64(entries[p]) * np.uint64(num_features)
                for f in range(np.uint64(num_features)):
                    fetched[f * np.uint64(8 * BLOCK) + p] = level[at + f]


@numba.njit(cache=True, error_model="numpy", fastmath=RELAXED)
def _mix(weights, fetched, mixed):
    """Interpolate one feature."""
    for p in range(np.uint64(len(mixed))):
        low = weights[p] * fetched[p] + weights[BLOCK + p] * fetched[BLOCK + p]
        low += (
            weights[2 * BLOCK + p] * fetched[2 * BLOCK + p] + weights[3 * BLOCK + p] * fetched[3 * BLOCK + p]
        )
        high = (
            weights[4 * BLOCK + p] * fetched[4 * BLOCK + p] + weights[5 * BLOCK + p] * fetched[5 * BLOCK + p]
        )
        high += (
            weights[6 * BLOCK + p] * fetched[6 * BLOCK + p] + weights[7 * BLOCK + p] * fetched[7 * BLOCK + p]
        )
        mixed[p] = low + high


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _encode(points, table, sides, hashed, offsets, features, threads, counter):
    chunks, num_features, flat = (len(points) + CHUNK - 1) // CHUNK, table.shape[1], table.reshape(-1)
    for _ in numba.prange(threads):
        cells, entries = np.empty(3 * BLOCK, np.int32), np.empty(8 * BLOCK, np.uint32)
        fractions, weights, fetched = (
            _scratch(4, table),
            _scratch(8, table),
            _scratch(8 * num_features, table),
        )
        task = next_task(counter)
        while task < len(sides) * chunks:
            n, chunk = task // chunks, task % chunks
            level = flat[offsets[n] * num_features : offsets[n + 1] * num_features]
            mask = np.uint32(offsets[n + 1] - offsets[n] - 1)
            for start in range(chunk * CHUNK, min(len(points), (chunk + 1) * CHUNK), BLOCK):
                end = min(len(points), start + BLOCK)
                _locate(points[start:end], sides[n], cells, fractions)
                _find_entries(end - start, cells, sides[n], hashed[n], mask, entries)
                _find_weights(end - start, fractions, weights)
                _fetch(end - start, entries, level, num_features, fetched)
                for f in range(num_features):
                    _mix(weights, fetched[f * 8 * BLOCK :], features[n * num_features + f, start:end])
            task = next_task(counter)


@numba.njit(cache=True, error_model="numpy", fastmath=RELAXED)
def _add_point_gradient(count, size, gradients, fetched, fractions, grad_points):
    """Add the gradient of the points through one feature."""
    one = fractions.dtype.type(1)
    for p in range(np.uint64(count)):
        u, v, w, inside = (
            fractions[p],
            fractions[BLOCK + p],
            fractions[2 * BLOCK + p],
            fractions[3 * BLOCK + p],
        )
        t, gradient = one - w, size * inside * gradients[p]
        a, b = fetched[p], fetched[BLOCK + p]
        c, d = fetched[2 * BLOCK + p], fetched[3 * BLOCK + p]
        e, f = fetched[4 * BLOCK + p], fetched[5 * BLOCK + p]
        g, h = fetched[6 * BLOCK + p], fetched[7 * BLOCK + p]
        ab, cd, ef, gh = b - a, d - c, f - e, h - g
        low, high = ab + v * (cd - ab), ef + v * (gh - ef)
        grad_points[p, 0] += gradient * (low + w * (high - low))
        a, c, e, g = a + u * ab, c + u * cd, e + u * ef, g + u * gh
        grad_points[p, 1] += gradient * (t * (c - a) + w * (g - e))
        a, e = a + v * (c - a), e + v * (g - e)
        grad_points[p, 2] += gradient * (e - a)


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _point_gradient(points, table, sides, hashed, offsets, gradients, grad_points, threads, counter):
    num_features, flat = table.shape[1], table.reshape(-1)
    for _ in numba.prange(threads):
        cells, entries = np.empty(3 * BLOCK, np.int32), np.empty(8 * BLOCK, np.uint32)
        fractions, fetched = _scratch(4, table), _scratch(8 * num_features, table)
        chunk = next_task(counter)
        while chunk * CHUNK < len(points):
            grad_points[chunk * CHUNK : (chunk + 1) * CHUNK] = 0
            for n in range(len(sides)):
                level = flat[offsets[n] * num_features : offsets[n + 1] * num_features]
                mask, size = np.uint32(offsets[n + 1] - offsets[n] - 1), table.dtype.type(sides[n])
                for start in range(chunk * CHUNK, min(len(points), (chunk + 1) * CHUNK), BLOCK):
                    end = min(len(points), start + BLOCK)
                    _locate(points[start:end], sides[n], cells, fractions)
                    _find_entries(end - start, cells, sides[n], hashed[n], mask, entries)
                    _fetch(end - start, entries, level, num_features, fetched)
                    for f in range(num_features):
                        gradient = gradients[n * num_features + f, start:end]
                        _add_point_gradient(
                            end - start,
                            size,
                            gradient,
                            fetched[f * 8 * BLOCK :],
                            fractions,
                            grad_points[start:end],
                        )
            chunk = next_task(counter)


@numba.njit(cache=True, error_model="numpy", fastmath=RELAXED)
def _add_table_gradient(entries, weights, gradients, level):
    """Add the gradient of each point's features to the entries of its corners, in the order of the points."""
    num_features, count = gradients.shape
    two, eight, block = np.uint64(2), np.uint64(8), np.uint64(BLOCK)
    if num_features == 2:
        for p in range(np.uint64(count)):
            later = min(p + np.uint64(PREFETCH_DISTANCE), np.uint64(count - 1))
            for q in range(eight):
                prefetch(level, np.uint64(entries[q * block + later]) * two)
            first, second = gradients[0, p], gradients[1, p]
            for q in range(eight):
                at, weight = np.uint64(entries[q * block + p]) * two, weights[q * block + p]
                level[at] += weight * first
                level[at + np.uint64(1)] += weight * second
    else:
        for p in range(np.uint64(count)):
            for q in range(eight):
                at, weight = (
                    np.uint64(entries[q * block + p]) * np.uint64(num_features),
                    weights[q * block + p],
                )
                for f in range(np.uint64(num_features)):
                    level[at + f] += weight * gradients[f, p]


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _scatter(points, sides, hashed, offsets, gradients, grad_table, threads, counter):
    num_features, flat = grad_table.shape[1], grad_table.reshape(-1)
    for _ in numba.prange(threads):
        cells, entries = np.empty(3 * BLOCK, np.int32), np.empty(8 * BLOCK, np.uint32)
        fractions, weights = _scratch(4, points), _scratch(8, points)
        n = len(sides) - 1 - next_task(counter)  # finest first: they take longest
        while n >= 0:
            level = flat[offsets[n] * num_features : offsets[n + 1] * num_features]
            mask = np.uint32(offsets[n + 1] - offsets[n] - 1)
            for start in range(0, len(points), BLOCK):
                end = min(len(points), start + BLOCK)
                _locate(points[start:end], sides[n], cells, fractions)
                _find_entries(end - start, cells, sides[n], hashed[n], mask, entries)
                _find_weights(end - start, fractions, weights)
                _add_table_gradient(
                    entries, weights, gradients[n * num_features : (n + 1) * num_features, start:end], level
                )
            n = len(sides) - 1 - next_task(counter)
