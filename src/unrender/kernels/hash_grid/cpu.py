"""Look-up in hashed grids, level by level, so that one level's entries stay in the cache.

Points are taken in blocks, in three passes: where their corners are and what share each has (on all lanes at once),
fetch the entries (nothing but loads, so that many are under way), mix (on all lanes again). On the way back to the
table a level belongs to one thread: entries get their shares in the order of the points, for any number of threads.
They are asked for some points ahead, as memory to be written is slow to come.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._batch import array, room
from unrender.kernels._dispatch import cpu_threads
from unrender.kernels._llvm.prefetch import prefetch
from unrender.kernels._llvm.queue import new_queue, take
from unrender.kernels.hash_grid.levels import HashLevels
from unrender.kernels.hash_grid.reference import PRIMES

BLOCK = 256
"""Points whose corners are found at once. What is known of them lies in one row, BLOCK numbers of each kind after
another: the compiler sees that these do not overlap, and uses vectors."""
CHUNK = 8192
"""Points of one level that one thread takes at a time."""
PRIME_Y, PRIME_Z = np.uint32(PRIMES[1]), np.uint32(PRIMES[2])
AHEAD = 12
"""Points whose entries are asked for before they are needed."""
RELAXED = {"contract", "reassoc", "nsz"}


def forward(points: Tensor, table: Tensor, levels: HashLevels) -> Tensor:
    features = room(table, len(levels.resolutions) * table.shape[1], len(points))
    with cpu_threads(len(points) * len(levels.resolutions)):
        _look_up(array(points), array(table), *_arrays(levels), features.numpy(), *new_queue())
    return features.mT


def backward(
    points: Tensor, table: Tensor, levels: HashLevels, cotangent: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """`wanted` says which of points and table need a gradient."""
    to_points = to_table = None
    places, slopes = array(points), array(cotangent.mT)
    with cpu_threads(len(points) * len(levels.resolutions)):
        if wanted[0]:
            to_points = room(points, *points.shape)
            _slopes(places, array(table), *_arrays(levels), slopes, to_points.numpy(), *new_queue())
        if wanted[1]:
            sums = np.zeros(table.shape, places.dtype)  # the system zeroes pages when they are first touched
            _scatter(places, *_arrays(levels), slopes, sums, *new_queue())
            to_table = torch.from_numpy(sums)
    return to_points, to_table


def _arrays(levels):
    return np.array(levels.resolutions), np.array(levels.hashed), np.array(levels.offsets)


@numba.njit(cache=True, error_model="numpy")
def _scratch(kinds, like):
    return np.empty(kinds * BLOCK, like.dtype)


@numba.njit(cache=True, error_model="numpy", fastmath=RELAXED)
def _locate(points, side, cells, parts):
    """Fill the cell of each point and how far in it the point is; the last part is 1, or 0 for a point outside."""
    zero, one = points.dtype.type(0), points.dtype.type(1)
    size, last = points.dtype.type(side), points.dtype.type(side - 1)
    for p in range(np.uint64(len(points))):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        inside = (x >= zero) & (x <= one) & (y >= zero) & (y <= one) & (z >= zero) & (z <= one)
        x, y, z = x * size if inside else zero, y * size if inside else zero, z * size if inside else zero
        i, j, k = np.floor(x), np.floor(y), np.floor(z)
        i, j, k = i if i < last else last, j if j < last else last, k if k < last else last
        cells[p], cells[BLOCK + p], cells[2 * BLOCK + p] = np.int32(i), np.int32(j), np.int32(k)
        parts[p], parts[BLOCK + p], parts[2 * BLOCK + p] = x - i, y - j, z - k
        parts[3 * BLOCK + p] = one if inside else zero


@numba.njit(cache=True, error_model="numpy")
def _enter(count, cells, side, hashed, mask, entries):
    """Fill the entries of the eight corners, x changing fastest, from the cells."""
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
def _share(count, parts, shares):
    """Fill the share of each of the eight corners: none for points outside."""
    one = parts.dtype.type(1)
    for p in range(np.uint64(count)):
        u, v, w, there = parts[p], parts[BLOCK + p], parts[2 * BLOCK + p], parts[3 * BLOCK + p]
        low, high = there * (one - w), there * w
        a, b, c, d = low * (one - v), low * v, high * (one - v), high * v
        shares[p], shares[BLOCK + p] = a - a * u, a * u
        shares[2 * BLOCK + p], shares[3 * BLOCK + p] = b - b * u, b * u
        shares[4 * BLOCK + p], shares[5 * BLOCK + p] = c - c * u, c * u
        shares[6 * BLOCK + p], shares[7 * BLOCK + p] = d - d * u, d * u


@numba.njit(cache=True, error_model="numpy")
def _fetch(count, entries, level, num_features, fetched):
    """Fill the entries' features, corner by corner, from the numbers of one level."""
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
def _mix(shares, fetched, mixed):
    """Fill one feature of points."""
    for p in range(np.uint64(len(mixed))):
        low = shares[p] * fetched[p] + shares[BLOCK + p] * fetched[BLOCK + p]
        low += shares[2 * BLOCK + p] * fetched[2 * BLOCK + p] + shares[3 * BLOCK + p] * fetched[3 * BLOCK + p]
        high = shares[4 * BLOCK + p] * fetched[4 * BLOCK + p] + shares[5 * BLOCK + p] * fetched[5 * BLOCK + p]
        high += (
            shares[6 * BLOCK + p] * fetched[6 * BLOCK + p] + shares[7 * BLOCK + p] * fetched[7 * BLOCK + p]
        )
        mixed[p] = low + high


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _look_up(points, table, sides, hashed, offsets, features, threads, counter):
    chunks, num_features, flat = (len(points) + CHUNK - 1) // CHUNK, table.shape[1], table.reshape(-1)
    for _ in numba.prange(threads):
        cells, entries = np.empty(3 * BLOCK, np.int32), np.empty(8 * BLOCK, np.uint32)
        parts, shares, fetched = _scratch(4, table), _scratch(8, table), _scratch(8 * num_features, table)
        task = take(counter)
        while task < len(sides) * chunks:
            n, chunk = task // chunks, task % chunks
            level = flat[offsets[n] * num_features : offsets[n + 1] * num_features]
            mask = np.uint32(offsets[n + 1] - offsets[n] - 1)
            for begin in range(chunk * CHUNK, min(len(points), (chunk + 1) * CHUNK), BLOCK):
                end = min(len(points), begin + BLOCK)
                _locate(points[begin:end], sides[n], cells, parts)
                _enter(end - begin, cells, sides[n], hashed[n], mask, entries)
                _share(end - begin, parts, shares)
                _fetch(end - begin, entries, level, num_features, fetched)
                for f in range(num_features):
                    _mix(shares, fetched[f * 8 * BLOCK :], features[n * num_features + f, begin:end])
            task = take(counter)


@numba.njit(cache=True, error_model="numpy", fastmath=RELAXED)
def _climb(count, size, slopes, fetched, parts, to_points):
    """Add the slopes by the points from the eight corners' features, each weighed by its slope."""
    one = parts.dtype.type(1)
    for p in range(np.uint64(count)):
        u, v, w, there = parts[p], parts[BLOCK + p], parts[2 * BLOCK + p], parts[3 * BLOCK + p]
        t, slope = one - w, size * there * slopes[p]
        a, b = fetched[p], fetched[BLOCK + p]
        c, d = fetched[2 * BLOCK + p], fetched[3 * BLOCK + p]
        e, f = fetched[4 * BLOCK + p], fetched[5 * BLOCK + p]
        g, h = fetched[6 * BLOCK + p], fetched[7 * BLOCK + p]
        ab, cd, ef, gh = b - a, d - c, f - e, h - g
        low, high = ab + v * (cd - ab), ef + v * (gh - ef)
        to_points[p, 0] += slope * (low + w * (high - low))
        a, c, e, g = a + u * ab, c + u * cd, e + u * ef, g + u * gh
        to_points[p, 1] += slope * (t * (c - a) + w * (g - e))
        a, e = a + v * (c - a), e + v * (g - e)
        to_points[p, 2] += slope * (e - a)


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _slopes(points, table, sides, hashed, offsets, slopes, to_points, threads, counter):
    num_features, flat = table.shape[1], table.reshape(-1)
    for _ in numba.prange(threads):
        cells, entries = np.empty(3 * BLOCK, np.int32), np.empty(8 * BLOCK, np.uint32)
        parts, fetched = _scratch(4, table), _scratch(8 * num_features, table)
        chunk = take(counter)
        while chunk * CHUNK < len(points):
            to_points[chunk * CHUNK : (chunk + 1) * CHUNK] = 0
            for n in range(len(sides)):
                level = flat[offsets[n] * num_features : offsets[n + 1] * num_features]
                mask, size = np.uint32(offsets[n + 1] - offsets[n] - 1), table.dtype.type(sides[n])
                for begin in range(chunk * CHUNK, min(len(points), (chunk + 1) * CHUNK), BLOCK):
                    end = min(len(points), begin + BLOCK)
                    _locate(points[begin:end], sides[n], cells, parts)
                    _enter(end - begin, cells, sides[n], hashed[n], mask, entries)
                    _fetch(end - begin, entries, level, num_features, fetched)
                    for f in range(num_features):
                        slope = slopes[n * num_features + f, begin:end]
                        _climb(
                            end - begin, size, slope, fetched[f * 8 * BLOCK :], parts, to_points[begin:end]
                        )
            chunk = take(counter)


@numba.njit(cache=True, error_model="numpy", fastmath=RELAXED)
def _drop(entries, shares, slopes, level):
    """Add each point's slopes to the entries of its corners, in the order of the points."""
    num_features, count = slopes.shape
    two, eight, block = np.uint64(2), np.uint64(8), np.uint64(BLOCK)
    if num_features == 2:
        for p in range(np.uint64(count)):
            later = min(p + np.uint64(AHEAD), np.uint64(count - 1))
            for q in range(eight):
                prefetch(level, np.uint64(entries[q * block + later]) * two)
            first, second = slopes[0, p], slopes[1, p]
            for q in range(eight):
                at, share = np.uint64(entries[q * block + p]) * two, shares[q * block + p]
                level[at] += share * first
                level[at + np.uint64(1)] += share * second
    else:
        for p in range(np.uint64(count)):
            for q in range(eight):
                at, share = np.uint64(entries[q * block + p]) * np.uint64(num_features), shares[q * block + p]
                for f in range(np.uint64(num_features)):
                    level[at + f] += share * slopes[f, p]


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _scatter(points, sides, hashed, offsets, slopes, to_table, threads, counter):
    num_features, flat = to_table.shape[1], to_table.reshape(-1)
    for _ in numba.prange(threads):
        cells, entries = np.empty(3 * BLOCK, np.int32), np.empty(8 * BLOCK, np.uint32)
        parts, shares = _scratch(4, points), _scratch(8, points)
        n = len(sides) - 1 - take(counter)  # finest first: they take longest
        while n >= 0:
            level = flat[offsets[n] * num_features : offsets[n + 1] * num_features]
            mask = np.uint32(offsets[n + 1] - offsets[n] - 1)
            for begin in range(0, len(points), BLOCK):
                end = min(len(points), begin + BLOCK)
                _locate(points[begin:end], sides[n], cells, parts)
                _enter(end - begin, cells, sides[n], hashed[n], mask, entries)
                _share(end - begin, parts, shares)
                _drop(entries, shares, slopes[n * num_features : (n + 1) * num_features, begin:end], level)
            n = len(sides) - 1 - take(counter)
