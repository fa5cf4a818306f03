"""Tiled soft silhouettes: all pixels of a tile are computed at once, and no list of faces is stored.

The backward pass visits the same tiles and computes one gradient per face and tile; these are summed in a fixed order,
so that every bit is the same for any number of threads.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._dispatch import cpu_threads
from unrender.kernels._llvm.exponential import exp
from unrender.kernels._screen import TILE, clip_backward, project, scatter_to_vertices
from unrender.kernels.silhouette.reference import LOGIT_AT_BLUR


def forward(
    points: Tensor, faces: Tensor, height: int, width: int, blur: float, near: float
) -> tuple[Tensor, ...]:
    flat = points.detach().reshape(-1, *points.shape[-2:]).contiguous()
    transparency = flat.new_empty(len(flat), height, width)
    with cpu_threads(height * width):
        for one, image in zip(flat.numpy(), transparency.numpy(), strict=True):
            screen, bins = project(one, faces.numpy(), height, width, near, blur, False)
            _cover(*screen[1:], *bins, one.dtype.type(blur), image)
    transparency = transparency.view(*points.shape[:-2], height, width)
    return 1 - transparency, transparency


def backward(
    points: Tensor,
    faces: Tensor,
    transparency: Tensor,
    screen: tuple[Tensor, ...],
    grad_output: Tensor,
    blur: float,
    near: float,
) -> Tensor:
    gradient = torch.zeros_like(points, memory_format=torch.contiguous_format)
    batch_axes = points.dim() - 2
    tensors = (points, gradient, transparency, -grad_output)
    flat = [t.detach().contiguous().reshape(-1, *t.shape[batch_axes:]).numpy() for t in tensors]
    with cpu_threads(transparency.numel()):
        for one, one_gradient, image, grad in zip(*flat, strict=True):
            seen, bins = project(one, faces.numpy(), image.shape[0], image.shape[1], near, blur, False)
            scalar = one.dtype.type
            partial = np.empty((len(bins.faces), 4, 2), one.dtype)
            _cover_backward(*seen[1:], *bins, scalar(blur), image, grad, partial)
            by_face = np.zeros((len(faces), 3, 4), one.dtype)
            _add_up(*seen[:3], bins.faces, partial, scalar(near), by_face)
            scatter_to_vertices(by_face, faces.numpy(), one_gradient)
    return gradient


@numba.njit(cache=True, error_model="numpy")
def _pixel_centers(left, top, xs, ys):
    """Fill the coordinates of a tile's pixel centers, row by row."""
    for pixel in range(TILE * TILE):
        xs[pixel] = left + pixel % TILE + 0.5
        ys[pixel] = top + pixel // TILE + 0.5


@numba.njit(cache=True, error_model="numpy")
def _measure(corners, count, area, xs, ys, first, last, squared, side):
    """Fill the squared distance to the outline, and the smallest edge function, which is ≥ 0 inside."""
    zero, one = corners.dtype.type(0), corners.dtype.type(1)
    sign = one if area > 0 else -one
    for pixel in range(np.uint64(first), np.uint64(last)):
        squared[pixel] = np.inf
        side[pixel] = np.inf if area != 0 else -one
    for k in range(count):
        j = k + 1 if k + 1 < count else 0
        ax, ay, bx, by = corners[k, 0], corners[k, 1], corners[j, 0], corners[j, 1]
        ex, ey = bx - ax, by - ay
        length = ex * ex + ey * ey
        inverse = one / length if length > 0 else zero
        for pixel in range(np.uint64(first), np.uint64(last)):
            dx, dy, fx, fy = xs[pixel] - ax, ys[pixel] - ay, xs[pixel] - bx, ys[pixel] - by
            t = min(max((dx * ex + dy * ey) * inverse, zero), one)
            qx, qy = dx - t * ex, dy - t * ey
            squared[pixel] = min(squared[pixel], qx * qx + qy * qy)
            side[pixel] = min(side[pixel], sign * (dx * fy - fx * dy))


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _cover(corners, counts, areas, bounds, starts, bins, blur, image):
    height, width = image.shape
    dtype = image.dtype.type
    columns = (width + TILE - 1) // TILE
    sharpness, limit, zero, one, max_exponent = (
        dtype(LOGIT_AT_BLUR) / (blur * blur),
        blur * blur,
        dtype(0),
        dtype(1),
        dtype(40),
    )
    min_transparency = dtype(np.finfo(image.dtype).eps / 8)  # below that, coverage is 1 to the last bit
    for tile in numba.prange(len(starts) - 1):
        top, left = tile // columns * TILE, tile % columns * TILE
        xs, ys, squared, side = np.empty((4, TILE * TILE), image.dtype)
        tile_transparency = np.ones(TILE * TILE, image.dtype)
        _pixel_centers(left, top, xs, ys)
        for entry in range(starts[tile], starts[tile + 1]):
            if (entry - starts[tile]) % 16 == 15 and tile_transparency.max() == 0:
                break
            face = bins[entry]
            first = TILE * max(0, bounds[face, 2] - top)
            last = TILE * min(TILE, bounds[face, 3] + 1 - top)
            _measure(corners[face], counts[face], areas[face], xs, ys, first, last, squared, side)
            for pixel in range(np.uint64(first), np.uint64(last)):
                inside, d = side[pixel] >= 0, squared[pixel]
                x = max(min((d if inside else -d) * sharpness, max_exponent), -max_exponent)
                factor = one / (one + exp(x)) if inside or d <= limit else one
                product = tile_transparency[pixel] * factor
                tile_transparency[pixel] = product if product > min_transparency else zero
        for row in range(top, min(top + TILE, height)):
            for column in range(left, min(left + TILE, width)):
                image[row, column] = tile_transparency[(row - top) * TILE + column - left]


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _cover_backward(corners, counts, areas, bounds, starts, bins, blur, image, grad, partial):
    height, width = image.shape
    dtype = image.dtype.type
    columns = (width + TILE - 1) // TILE
    sharpness, limit, zero, one, max_exponent = (
        dtype(LOGIT_AT_BLUR) / (blur * blur),
        blur * blur,
        dtype(0),
        dtype(1),
        dtype(40),
    )
    for tile in numba.prange(len(starts) - 1):
        top, left = tile // columns * TILE, tile % columns * TILE
        xs, ys, squared, side, weight, edge_weight = np.empty((6, TILE * TILE), image.dtype)
        scale = np.zeros(TILE * TILE, image.dtype)
        _pixel_centers(left, top, xs, ys)
        first_used, last_used = TILE, 0
        for row in range(top, min(top + TILE, height)):
            for column in range(left, min(left + TILE, width)):
                if image[row, column] * grad[row, column] != 0:
                    pixel = (row - top) * TILE + column - left
                    scale[pixel] = 2 * sharpness * image[row, column] * grad[row, column]
                    first_used, last_used = min(first_used, row - top), row - top + 1
        for entry in range(starts[tile], starts[tile + 1]):
            face = bins[entry]
            first = TILE * max(first_used, bounds[face, 2] - top)
            last = TILE * min(last_used, bounds[face, 3] + 1 - top)
            partial[entry] = 0
            if first >= last:
                continue
            _measure(corners[face], counts[face], areas[face], xs, ys, first, last, squared, side)
            for pixel in range(np.uint64(first), np.uint64(last)):
                inside, d = side[pixel] >= 0, squared[pixel]
                x = max(min((d if inside else -d) * sharpness, max_exponent), -max_exponent)
                coverage = one - one / (one + exp(x))
                signed = -coverage if inside else coverage
                weight[pixel] = scale[pixel] * signed if inside or d <= limit else zero
            _distribute(
                corners[face], counts[face], xs, ys, first, last, squared, weight, edge_weight, partial[entry]
            )


@numba.njit(cache=True, error_model="numpy")
def _distribute(corners, count, xs, ys, first, last, squared, weight, edge_weight, gradient):
    """Distribute the weight of each pixel to the ends of its nearest edge; weights are zeroed in the process."""
    zero, one = corners.dtype.type(0), corners.dtype.type(1)
    for k in range(count):
        j = k + 1 if k + 1 < count else 0
        ax, ay = corners[k, 0], corners[k, 1]
        ex, ey = corners[j, 0] - ax, corners[j, 1] - ay
        length = ex * ex + ey * ey
        inverse = one / length if length > 0 else zero
        for pixel in range(np.uint64(first), np.uint64(last)):
            dx, dy = xs[pixel] - ax, ys[pixel] - ay
            t = min(max((dx * ex + dy * ey) * inverse, zero), one)
            qx, qy = dx - t * ex, dy - t * ey
            nearest = qx * qx + qy * qy == squared[pixel]
            edge_weight[pixel] = weight[pixel] if nearest else zero
            weight[pixel] = zero if nearest else weight[pixel]
        whole_x, whole_y, end_x, end_y = _moments(xs, ys, first, last, edge_weight, ax, ay, ex, ey, inverse)
        gradient[k, 0] -= whole_x - end_x
        gradient[k, 1] -= whole_y - end_y
        gradient[j, 0] -= end_x
        gradient[j, 1] -= end_y


@numba.njit(cache=True, error_model="numpy", fastmath={"reassoc", "nsz"})  # lets sums vectorize
def _moments(xs, ys, first, last, edge_weight, ax, ay, ex, ey, inverse):
    """Sum, over pixels, weight times the offset from the closest point on the edge, and that times its parameter t."""
    zero, one = ax * 0, ax * 0 + 1
    whole_x, whole_y, end_x, end_y = zero, zero, zero, zero
    for pixel in range(np.uint64(first), np.uint64(last)):
        dx, dy = xs[pixel] - ax, ys[pixel] - ay
        t = min(max((dx * ex + dy * ey) * inverse, zero), one)
        x, y = edge_weight[pixel] * (dx - t * ex), edge_weight[pixel] * (dy - t * ey)
        whole_x += x
        whole_y += y
        end_x += t * x
        end_y += t * y
    return whole_x, whole_y, end_x, end_y


@numba.njit(cache=True, error_model="numpy")
def _add_up(triangles, corners, counts, bins, partial, near, by_face):
    """Sum the gradients of each face's corners, tile by tile, and backpropagate them to its vertices."""
    total = np.zeros_like(corners)
    for entry in range(len(bins)):
        for k in range(counts[bins[entry]]):
            total[bins[entry], k, 0] += partial[entry, k, 0]
            total[bins[entry], k, 1] += partial[entry, k, 1]
    for face in range(len(counts)):
        clip_backward(triangles[face], near, total[face], by_face[face])
