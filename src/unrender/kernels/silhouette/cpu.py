"""Soft coverage, tile by tile: all pixels of a tile's row at once, and no list of faces is kept.

The way back visits the same tiles, and leaves one gradient for each face and tile; they are added up in their
order, so every bit is the same for any number of threads.
"""

import math

import numba
import numpy as np
import torch
from numba.core import types
from numba.extending import intrinsic, overload
from torch import Tensor

from unrender.kernels._dispatch import cpu_threads
from unrender.kernels._screen import TILE, cut_backward, project, scatter_to_vertices
from unrender.kernels.silhouette.reference import EDGE


def forward(points: Tensor, faces: Tensor, height: int, width: int, blur: float, near: float) -> Tensor:
    flat = points.detach().reshape(-1, *points.shape[-2:]).contiguous()
    open_share = flat.new_empty(len(flat), height, width)
    with cpu_threads():
        for one, image in zip(flat.numpy(), open_share.numpy(), strict=True):
            screen, bins = project(one, faces.numpy(), height, width, near, blur, False)
            _cover(*screen[1:], *bins, one.dtype.type(blur), image)
    return open_share.view(*points.shape[:-2], height, width)


def backward(
    points: Tensor, faces: Tensor, open_share: Tensor, cotangent: Tensor, blur: float, near: float
) -> Tensor:
    gradient = torch.zeros_like(points, memory_format=torch.contiguous_format)
    batch_axes = points.dim() - 2
    tensors = (points, gradient, open_share, cotangent)
    flat = [t.detach().contiguous().reshape(-1, *t.shape[batch_axes:]).numpy() for t in tensors]
    with cpu_threads():
        for one, one_gradient, image, slope in zip(*flat, strict=True):
            screen, bins = project(one, faces.numpy(), image.shape[0], image.shape[1], near, blur, False)
            scalar = one.dtype.type
            partial = np.empty((len(bins.faces), 4, 2), one.dtype)
            _cover_backward(*screen[1:], *bins, scalar(blur), image, slope, partial)
            by_face = np.zeros((len(faces), 3, 4), one.dtype)
            _add_up(*screen[:3], bins.faces, partial, scalar(near), by_face)
            scatter_to_vertices(by_face, faces.numpy(), one_gradient)
    return gradient


@intrinsic
def _float_from_bits(typing_context, bits):
    """Read 32 bits as a float."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


def _exp(x):
    raise NotImplementedError


@overload(_exp, inline="always")
def _overload_exp(x):
    if x != types.float32:
        return lambda x: math.exp(x)

    def exp32(x):
        """Cephes' expf, without branches so that it runs on all lanes; |x| below 87."""
        n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
        r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
        p = np.float32(1.9875691500e-4)
        p = p * r + np.float32(1.3981999507e-3)
        p = p * r + np.float32(8.3334519073e-3)
        p = p * r + np.float32(4.1665795894e-2)
        p = p * r + np.float32(1.6666665459e-1)
        p = p * r + np.float32(5.0000001201e-1)
        p = p * r * r + r + np.float32(1)
        return p * _float_from_bits((np.int32(n) + np.int32(127)) << np.int32(23))

    return exp32


@numba.njit(cache=True, error_model="numpy")
def _measure(corners, count, area, left, top, first, last, squared, side):
    """Fill squared distance to the outline, and whether the nearest edge line is seen from inside (side ≥ 0)."""
    dtype = corners.dtype.type
    half, zero, one = dtype(0.5), dtype(0), dtype(1)
    sign = one if area > 0 else -one
    for row in range(first, last):
        for lane in range(TILE):
            squared[row, lane] = np.inf
            side[row, lane] = np.inf if area != 0 else -one
    for k in range(count):
        j = k + 1 if k + 1 < count else 0
        ax, ay, bx, by = corners[k, 0], corners[k, 1], corners[j, 0], corners[j, 1]
        ex, ey = bx - ax, by - ay
        length = ex * ex + ey * ey
        inverse = one / length if length > 0 else zero
        for row in range(first, last):
            dy = dtype(top + row) + half - ay
            fy = dtype(top + row) + half - by
            for lane in range(TILE):
                dx = dtype(left + lane) + half - ax
                fx = dtype(left + lane) + half - bx
                t = min(max((dx * ex + dy * ey) * inverse, zero), one)
                qx, qy = dx - t * ex, dy - t * ey
                squared[row, lane] = min(squared[row, lane], qx * qx + qy * qy)
                side[row, lane] = min(side[row, lane], sign * (dx * fy - fx * dy))


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _cover(corners, counts, areas, bounds, starts, bins, blur, image):
    height, width = image.shape
    dtype = image.dtype.type
    columns = (width + TILE - 1) // TILE
    sharpness, limit, one = dtype(EDGE) / (blur * blur), blur * blur, dtype(1)
    most, least = dtype(40), dtype(np.finfo(image.dtype).eps / 8)  # below that, coverage is 1 to the last bit
    for tile in numba.prange(len(starts) - 1):
        top, left = tile // columns * TILE, tile % columns * TILE
        squared, side = np.empty((TILE, TILE), image.dtype), np.empty((TILE, TILE), image.dtype)
        share = np.ones((TILE, TILE), image.dtype)
        for entry in range(starts[tile], starts[tile + 1]):
            if (entry - starts[tile]) % 16 == 15 and share.max() == 0:
                break
            face = bins[entry]
            first, last = max(0, bounds[face, 2] - top), min(TILE, bounds[face, 3] + 1 - top)
            _measure(corners[face], counts[face], areas[face], left, top, first, last, squared, side)
            for row in range(first, last):
                for lane in range(TILE):
                    inside = side[row, lane] >= 0
                    d = squared[row, lane]
                    x = min((d if inside else -d) * sharpness, most)
                    factor = one / (one + _exp(max(x, -most)))
                    factor = factor if inside or d <= limit else one
                    product = share[row, lane] * factor
                    share[row, lane] = product if product > least else dtype(0)
        for row in range(top, min(top + TILE, height)):
            for column in range(left, min(left + TILE, width)):
                image[row, column] = share[row - top, column - left]


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _cover_backward(corners, counts, areas, bounds, starts, bins, blur, image, slope, partial):
    height, width = image.shape
    dtype = image.dtype.type
    columns = (width + TILE - 1) // TILE
    sharpness, limit = dtype(EDGE) / (blur * blur), blur * blur
    half, zero, one, most = dtype(0.5), dtype(0), dtype(1), dtype(40)
    for tile in numba.prange(len(starts) - 1):
        top, left = tile // columns * TILE, tile % columns * TILE
        squared, side = np.empty((TILE, TILE), image.dtype), np.empty((TILE, TILE), image.dtype)
        scale = np.zeros((TILE, TILE), image.dtype)  # of the whole tile
        weight = np.empty((TILE, TILE), image.dtype)  # of one face in it
        lanes = np.empty((4, TILE), image.dtype)
        for row in range(top, min(top + TILE, height)):
            for column in range(left, min(left + TILE, width)):
                scale[row - top, column - left] = 2 * sharpness * image[row, column] * slope[row, column]
        if not scale.any():
            partial[starts[tile] : starts[tile + 1]] = 0
            continue
        for entry in range(starts[tile], starts[tile + 1]):
            face = bins[entry]
            count, polygon = counts[face], corners[face]
            first, last = max(0, bounds[face, 2] - top), min(TILE, bounds[face, 3] + 1 - top)
            _measure(polygon, count, areas[face], left, top, first, last, squared, side)
            for row in range(first, last):
                for lane in range(TILE):
                    inside = side[row, lane] >= 0
                    d = squared[row, lane]
                    x = max(min((d if inside else -d) * sharpness, most), -most)
                    closed = one - one / (one + _exp(x))
                    signed = -closed if inside else closed
                    weight[row, lane] = scale[row, lane] * (signed if inside or d <= limit else zero)
            partial[entry] = 0
            for k in range(count):
                j = k + 1 if k + 1 < count else 0
                ax, ay = polygon[k, 0], polygon[k, 1]
                ex, ey = polygon[j, 0] - ax, polygon[j, 1] - ay
                length = ex * ex + ey * ey
                inverse = one / length if length > 0 else zero
                lanes[:] = 0
                for row in range(first, last):
                    dy = dtype(top + row) + half - ay
                    for lane in range(TILE):
                        dx = dtype(left + lane) + half - ax
                        t = min(max((dx * ex + dy * ey) * inverse, zero), one)
                        qx, qy = dx - t * ex, dy - t * ey
                        nearest = qx * qx + qy * qy == squared[row, lane]
                        w = weight[row, lane] if nearest else zero
                        weight[row, lane] = zero if nearest else weight[row, lane]
                        lanes[0, lane] += w * qx
                        lanes[1, lane] += w * qy
                        lanes[2, lane] += w * t * qx
                        lanes[3, lane] += w * t * qy
                for axis in range(2):
                    whole = at_end = zero
                    for lane in range(TILE):
                        whole += lanes[axis, lane]
                        at_end += lanes[2 + axis, lane]
                    partial[entry, k, axis] -= whole - at_end
                    partial[entry, j, axis] -= at_end


@numba.njit(cache=True, error_model="numpy")
def _add_up(triangles, corners, counts, bins, partial, near, by_face):
    """Add up the gradients of each face's corners, tile after tile, and carry them to its vertices."""
    total = np.zeros_like(corners)
    for entry in range(len(bins)):
        for k in range(counts[bins[entry]]):
            total[bins[entry], k, 0] += partial[entry, k, 0]
            total[bins[entry], k, 1] += partial[entry, k, 1]
    for face in range(len(counts)):
        cut_backward(triangles[face], near, total[face], by_face[face])
