"""Point rasterization, parallel over bands of rows; the backward pass is parallel over points."""

import math

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._dispatch import cpu_threads

BAND = 4
"""Rows of a band."""
MARGIN = 0.01
"""In pixels, more than the rounding of coordinates; pixels just beyond a disc are tested, and not covered."""


def forward(
    points: Tensor, radii: Tensor, height: int, width: int, layers: int
) -> tuple[Tensor, Tensor, Tensor]:
    batch = points.shape[:-2]
    flat = points.detach().reshape(batch.numel(), *points.shape[-2:]).contiguous()
    flat_radii = radii.detach().reshape(flat.shape[:2]).contiguous()
    slots = (len(flat), height, width, layers)
    found = (
        torch.empty(slots, dtype=torch.int32, device="cpu"),
        flat.new_empty(slots),
        flat.new_empty(slots),
    )
    with cpu_threads(height * width):
        for one, radius, *outputs in zip(
            flat.numpy(), flat_radii.numpy(), *(t.numpy() for t in found), strict=True
        ):
            _search(one, radius, *_bands(one, radius, height, width), *outputs)
    point_ids, depth, squared = (t.reshape(*batch, *t.shape[1:]) for t in found)
    return point_ids, depth, squared


def backward(points: Tensor, radii: Tensor, point_ids: Tensor, grad_outputs: tuple[Tensor, Tensor]) -> Tensor:
    gradient = torch.zeros_like(points, memory_format=torch.contiguous_format)
    batch_axes, images = points.dim() - 2, points.shape[:-2].numel()
    flat = [
        t.detach().contiguous().reshape(images, *t.shape[batch_axes:]).numpy()
        for t in (points, radii, point_ids, *grad_outputs, gradient)
    ]
    with cpu_threads(point_ids.numel()):
        for image in zip(*flat, strict=True):
            _gather(*image)
    return gradient


@numba.njit(cache=True)
def _span(center, radius, size):
    """Return the first pixel that a point may reach along an axis, and the one after the last."""
    first = max(math.ceil(center - radius - 0.5 - MARGIN), 0.0)
    last = min(math.floor(center + radius + 0.5 + MARGIN), float(size))
    return (int(first), int(last)) if first < last else (0, 0)


@numba.njit(cache=True)
def _is_visible(point, radius):
    finite = math.isfinite(point[0]) and math.isfinite(point[1]) and math.isfinite(point[2])
    return finite and point[2] >= 0 and radius > 0


@numba.njit(cache=True)
def _bands(points, radii, height, width):
    """List the points that reach each band: `order[starts[b]:starts[b + 1]]`, ascending."""
    starts = np.zeros((height + BAND - 1) // BAND + 1, np.int64)
    spans = np.zeros((len(points), 2), np.int32)
    for n in range(len(points)):
        if _is_visible(points[n], radii[n]):
            left, right = _span(points[n, 0], radii[n], width)
            top, bottom = _span(points[n, 1], radii[n], height)
            if left < right and top < bottom:
                spans[n, 0], spans[n, 1] = top // BAND, (bottom - 1) // BAND + 1
                for band in range(spans[n, 0], spans[n, 1]):
                    starts[band + 1] += 1
    starts = np.cumsum(starts)
    order, positions = np.empty(starts[-1], np.int32), starts[:-1].copy()
    for n in range(len(points)):
        for band in range(spans[n, 0], spans[n, 1]):
            order[positions[band]] = n
            positions[band] += 1
    return starts, order


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _search(points, radii, starts, order, point_ids, depth, squared):
    """Insert the points of each band into the sorted lists of the pixels."""
    height, width, layers = point_ids.shape
    for band in numba.prange(len(starts) - 1):
        first, last = band * BAND, min((band + 1) * BAND, height)
        point_ids[first:last] = -1
        depth[first:last] = np.inf
        squared[first:last] = 0
        for n in order[starts[band] : starts[band + 1]]:
            x, y, z, reach = points[n, 0], points[n, 1], points[n, 2], radii[n] * radii[n]
            left, right = _span(x, radii[n], width)
            top, bottom = _span(y, radii[n], height)
            for row in range(max(top, first), min(bottom, last)):
                dy = y - (row + points.dtype.type(0.5))
                for column in range(left, right):
                    dx = x - (column + points.dtype.type(0.5))
                    distance = dx * dx + dy * dy
                    if distance < reach and z < depth[row, column, layers - 1]:
                        slot = layers - 1
                        while slot > 0 and depth[row, column, slot - 1] > z:
                            point_ids[row, column, slot] = point_ids[row, column, slot - 1]
                            depth[row, column, slot] = depth[row, column, slot - 1]
                            squared[row, column, slot] = squared[row, column, slot - 1]
                            slot -= 1
                        point_ids[row, column, slot] = n
                        depth[row, column, slot] = z
                        squared[row, column, slot] = distance
        for row in range(first, last):
            for column in range(width):
                for slot in range(layers - 1, -1, -1):
                    if point_ids[row, column, slot] >= 0:
                        break
                    depth[row, column, slot] = 0


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _gather(points, radii, point_ids, grad_depth, grad_squared, gradient):
    """Sum the gradients of each point over the pixels that it reaches."""
    height, width, layers = point_ids.shape
    for n in numba.prange(len(points)):
        if _is_visible(points[n], radii[n]):
            x, y, reach = points[n, 0], points[n, 1], radii[n] * radii[n]
            left, right = _span(x, radii[n], width)
            top, bottom = _span(y, radii[n], height)
            for row in range(top, bottom):
                dy = y - (row + points.dtype.type(0.5))
                for column in range(left, right):
                    dx = x - (column + points.dtype.type(0.5))
                    if dx * dx + dy * dy < reach:
                        for slot in range(layers):
                            found = point_ids[row, column, slot]
                            if found == n:
                                gradient[n, 0] += 2 * dx * grad_squared[row, column, slot]
                                gradient[n, 1] += 2 * dy * grad_squared[row, column, slot]
                                gradient[n, 2] += grad_depth[row, column, slot]
                            if found == n or found < 0:
                                break
