"""Gaussian splatting, parallel over tiles; each tile lists the Gaussians that reach it, front to back.

Lists are built in two passes, count and fill, so that they never overflow, for as many rows of tiles at once as fit
into `MAX_ENTRIES`.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unrender.kernels._dispatch import cpu_threads
from unrender.kernels.splat_gaussians.reference import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE

Array = NDArray[np.generic]

TILE = 8
CHUNKS = 16
"""Chunks of Gaussians that are listed in parallel: their number does not depend on the number of threads."""
MAX_ENTRIES = 1 << 26
"""Entries of the lists of several rows of tiles; those of a single row may be more."""
MARGIN = 0.01
"""In pixels, more than the rounding of coordinates; Gaussians are tested at pixels just beyond their reach."""
SLACK = 1e-3
"""More than the rounding of exponents."""


class _Screen(NamedTuple):
    """Gaussians as they are evaluated."""

    shapes: Array
    """Mean x and y; entries xx, xy and yy of the inverse covariance; opacity; lowest exponent [gaussians, 7]."""
    spans: Array
    """First column and row of tiles that a Gaussian reaches, and the ones after the last [gaussians, 4]."""


def forward(
    means: Tensor,
    covariances: Tensor,
    opacities: Tensor,
    distances: Tensor,
    gradients: Tensor,
    colors: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    color = means.new_empty(height, width, 3)
    opacity, distance = means.new_empty(height, width), means.new_empty(height, width)
    values = torch.cat([distances[:, None], gradients, colors], 1).contiguous().numpy()
    with cpu_threads(height * width):
        screen, counts = _project(means, covariances, opacities, height, width)
        for band, starts, order in _lists(screen, counts, height, width):
            _composite(*screen, values, band, starts, order, color.numpy(), opacity.numpy(), distance.numpy())
    return color, opacity, distance


def weights(
    means: Tensor, covariances: Tensor, opacities: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    offsets = torch.zeros(height * width + 1, dtype=torch.int64, device="cpu")
    per_pixel = offsets[1:].view(height, width).numpy()
    ids, found = [], []
    with cpu_threads(height * width):
        screen, counts = _project(means, covariances, opacities, height, width)
        for band, starts, order in _lists(screen, counts, height, width):
            _count(*screen, band, starts, order, per_pixel)
            rows = per_pixel[band * TILE : (band + (len(starts) - 1) // _tiles(width)) * TILE]
            ends = np.cumsum(rows.reshape(-1)).reshape(rows.shape)
            total = int(ends[-1, -1])
            ids.append(np.empty(total, np.int32))
            found.append(np.empty(total, screen.shapes.dtype))
            _fill(*screen, band, starts, order, ends - rows, ids[-1], found[-1])
    offsets.cumsum_(0)
    return torch.from_numpy(np.concatenate(ids)), torch.from_numpy(np.concatenate(found)), offsets


def _tiles(pixels: int) -> int:
    return (pixels + TILE - 1) // TILE


def _project(
    means: Tensor, covariances: Tensor, opacities: Tensor, height: int, width: int
) -> tuple[_Screen, Array]:
    """Prepare Gaussians, and count those of each chunk that reach each tile [chunks, rows, columns]."""
    arrays = [t.contiguous().numpy() for t in (means, covariances, opacities)]
    shapes = np.empty((len(means), 7), arrays[0].dtype)
    spans = np.zeros((len(means), 4), np.int32)
    counts = np.zeros((CHUNKS, _tiles(height), _tiles(width)), np.int32)
    _prepare(*arrays, height, width, shapes, spans, counts)
    return _Screen(shapes, spans), counts


def _lists(screen: _Screen, counts: Array, height: int, width: int) -> Iterator[tuple[int, Array, Array]]:
    """Yield, for bands of tile rows, the first row, the start of each tile's list, and the lists."""
    per_row = counts.sum((0, 2), dtype=np.int64)
    first, rows = 0, len(per_row)
    while first < rows:
        last, total = first + 1, int(per_row[first])
        while last < rows and total + int(per_row[last]) <= MAX_ENTRIES:
            total += int(per_row[last])
            last += 1
        entries = counts[:, first:last].reshape(CHUNKS, -1).astype(np.int64)
        starts = np.empty(entries.shape[1] + 1, np.int64)
        order = np.empty(total, np.int32)
        _offset(entries, starts)
        _list(screen.spans, first, last, _tiles(width), entries, order)
        yield first, starts, order
        first = last


@numba.njit(cache=True)
def _tile_span(center, reach, size):
    """Return the first tile that a Gaussian may reach along an axis, and the one after the last."""
    first = max(math.ceil(center - reach - 0.5 - MARGIN), 0.0)
    last = min(math.floor(center + reach + 0.5 + MARGIN), float(size))
    return (int(first) // TILE, (int(last) - 1) // TILE + 1) if first < last else (0, 0)


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _prepare(means, covariances, opacities, height, width, shapes, spans, counts):
    for chunk in numba.prange(CHUNKS):
        for n in range(chunk * len(means) // CHUNKS, (chunk + 1) * len(means) // CHUNKS):
            x, y, opacity = means[n, 0], means[n, 1], opacities[n]
            xx, xy, yy = float(covariances[n, 0]), float(covariances[n, 1]), float(covariances[n, 2])
            determinant = xx * yy - xy * xy
            visible = determinant > 0 and xx > 0 and math.isfinite(determinant) and opacity >= MIN_ALPHA
            if not (visible and math.isfinite(x) and math.isfinite(y)):
                continue
            lowest = math.log(opacity / MIN_ALPHA)
            left, right = _tile_span(x, math.sqrt(2 * lowest * xx), width)
            top, bottom = _tile_span(y, math.sqrt(2 * lowest * yy), height)
            if left == right or top == bottom:
                continue
            shapes[n, 0], shapes[n, 1], shapes[n, 5] = x, y, opacity
            shapes[n, 2] = yy / determinant
            shapes[n, 3] = -xy / determinant
            shapes[n, 4] = xx / determinant
            shapes[n, 6] = -lowest - SLACK
            spans[n, 0], spans[n, 1], spans[n, 2], spans[n, 3] = left, top, right, bottom
            for row in range(top, bottom):
                for column in range(left, right):
                    counts[chunk, row, column] += 1


@numba.njit(cache=True)
def _offset(entries, starts):
    """Convert counts to the offsets at which each chunk starts to fill each list."""
    total = 0
    for tile in range(entries.shape[1]):
        starts[tile] = total
        for chunk in range(CHUNKS):
            count = entries[chunk, tile]
            entries[chunk, tile] = total
            total += count
    starts[-1] = total


@numba.njit(cache=True, parallel=True)
def _list(spans, first, last, columns, entries, order):
    for chunk in numba.prange(CHUNKS):
        for n in range(chunk * len(spans) // CHUNKS, (chunk + 1) * len(spans) // CHUNKS):
            for row in range(max(spans[n, 1], first), min(spans[n, 3], last)):
                for column in range(spans[n, 0], spans[n, 2]):
                    tile = (row - first) * columns + column
                    order[entries[chunk, tile]] = n
                    entries[chunk, tile] += 1


@numba.njit(cache=True, error_model="numpy")
def _weigh(shapes, x, y, ids, weights):
    """Write the positions in the list and the weights of the Gaussians at a pixel; return how many there are."""
    scalar = shapes.dtype.type
    count, transmittance = 0, scalar(1)
    for k in range(len(shapes)):
        dx, dy = x - shapes[k, 0], y - shapes[k, 1]
        exponent = scalar(-0.5) * (shapes[k, 2] * dx * dx + shapes[k, 4] * dy * dy) - shapes[k, 3] * dx * dy
        if exponent < shapes[k, 6]:
            continue
        alpha = min(shapes[k, 5] * math.exp(exponent), scalar(MAX_ALPHA))
        if alpha < scalar(MIN_ALPHA):
            continue
        after = transmittance * (scalar(1) - alpha)
        if after < scalar(MIN_TRANSMITTANCE):
            break
        ids[count], weights[count] = k, alpha * transmittance
        transmittance = after
        count += 1
    return count


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _composite(shapes, spans, values, band, starts, order, color, opacity, distance):
    height, width = opacity.shape
    columns, scalar = (width + TILE - 1) // TILE, shapes.dtype.type
    for tile in numba.prange(len(starts) - 1):
        listed = order[starts[tile] : starts[tile + 1]]
        own, own_values = shapes[listed], values[listed]
        ids, weights = np.empty(len(listed), np.int32), np.empty(len(listed), shapes.dtype)
        top, left = (band + tile // columns) * TILE, tile % columns * TILE
        for row in range(top, min(top + TILE, height)):
            for column in range(left, min(left + TILE, width)):
                x, y = column + scalar(0.5), row + scalar(0.5)
                count = _weigh(own, x, y, ids, weights)
                total = mean = red = green = blue = scalar(0)
                for i in range(count):
                    k, w = ids[i], weights[i]
                    total += w
                    dx, dy = x - own[k, 0], y - own[k, 1]
                    mean += w * (own_values[k, 0] + own_values[k, 1] * dx + own_values[k, 2] * dy)
                    red += w * own_values[k, 3]
                    green += w * own_values[k, 4]
                    blue += w * own_values[k, 5]
                color[row, column, 0], color[row, column, 1], color[row, column, 2] = red, green, blue
                opacity[row, column] = total
                distance[row, column] = mean / total if count > 0 else scalar(0)


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _count(shapes, spans, band, starts, order, per_pixel):
    height, width = per_pixel.shape
    columns, scalar = (width + TILE - 1) // TILE, shapes.dtype.type
    for tile in numba.prange(len(starts) - 1):
        own = shapes[order[starts[tile] : starts[tile + 1]]]
        ids, weights = np.empty(len(own), np.int32), np.empty(len(own), shapes.dtype)
        top, left = (band + tile // columns) * TILE, tile % columns * TILE
        for row in range(top, min(top + TILE, height)):
            for column in range(left, min(left + TILE, width)):
                x, y = column + scalar(0.5), row + scalar(0.5)
                per_pixel[row, column] = _weigh(own, x, y, ids, weights)


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _fill(shapes, spans, band, starts, order, begins, gaussian_ids, found):
    rows, width = begins.shape
    columns, scalar = (width + TILE - 1) // TILE, shapes.dtype.type
    for tile in numba.prange(len(starts) - 1):
        listed = order[starts[tile] : starts[tile + 1]]
        own = shapes[listed]
        ids, weights = np.empty(len(listed), np.int32), np.empty(len(listed), shapes.dtype)
        top, left = tile // columns * TILE, tile % columns * TILE
        for row in range(top, min(top + TILE, rows)):
            for column in range(left, min(left + TILE, width)):
                x, y = column + scalar(0.5), band * TILE + row + scalar(0.5)
                count = _weigh(own, x, y, ids, weights)
                begin = begins[row, column]
                for i in range(count):
                    gaussian_ids[begin + i] = listed[ids[i]]
                    found[begin + i] = weights[i]
