"""Normal equations of image alignment, parallel over bands of rows, whose sums are added in a fixed order."""

import numba
import numpy as np
from torch import Tensor

from unrender.kernels._dispatch import cpu_threads
from unrender.kernels.align.reference import MAX_DEPTH_STEP

BAND = 8
"""Rows of an image per task."""


def forward(
    images: Tensor,
    shading_gradients: Tensor,
    depth: Tensor,
    residual: Tensor,
    weight: Tensor,
    rays: Tensor,
    pivot: Tensor,
    with_depth: bool,
) -> tuple[Tensor, Tensor]:
    batch, _, height, _ = images.shape
    bands = (height + BAND - 1) // BAND
    gradient, hessian = images.new_empty(batch, bands, 6), images.new_empty(batch, bands, 6, 6)
    tensors = (images, shading_gradients, depth, residual, weight, rays, pivot, gradient, hessian)
    with cpu_threads(images.numel()):
        _add_up(*(t.detach().contiguous().numpy() for t in tensors), with_depth)
    hessian = hessian.sum(1)
    return gradient.sum(1), hessian + hessian.tril(-1).mT


@numba.njit(cache=True, inline="always")
def _fraction(depth, other):
    """Return the fraction of the difference to a neighbor that belongs to a pixel at `depth`; 0 is background."""
    if depth == 0:
        return depth
    if other == 0 or other - depth > MAX_DEPTH_STEP * depth:
        return depth * 0 + 1
    return depth * 0 if depth - other > MAX_DEPTH_STEP * other else depth * 0 + 0.5


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _add_up(images, shading_gradients, depth, residual, weight, rays, pivot, gradient, hessian, with_depth):
    batch, channels, height, width = images.shape
    bands = gradient.shape[1]
    zero = images.dtype.type(0)
    for task in numba.prange(batch * bands):
        b, band = task // bands, task % bands
        total, square = np.zeros(6, images.dtype), np.zeros((6, 6), images.dtype)
        u_x, u_y, jacobian = np.zeros(6, images.dtype), np.zeros(6, images.dtype), np.zeros(6, images.dtype)
        for row in range(band * BAND, min((band + 1) * BAND, height)):
            for column in range(width):
                z = depth[b, row, column]
                if z == 0:
                    continue
                x, y, focal_x, focal_y = rays[row, column]
                px, py, pz = x * z - pivot[b, 0], y * z - pivot[b, 1], z - pivot[b, 2]
                scale_x, scale_y = focal_x / z, focal_y / z
                u_x[0], u_x[1], u_x[2] = -scale_x * x * py, scale_x * (pz + x * px), -scale_x * py
                u_y[0], u_y[1], u_y[2] = -scale_y * (pz + y * py), scale_y * y * px, scale_y * px
                u_x[3], u_x[5], u_y[4], u_y[5] = scale_x, -scale_x * x, scale_y, -scale_y * y
                left = _fraction(z, depth[b, row, column - 1]) if column > 0 else zero
                right = _fraction(z, depth[b, row, column + 1]) if column + 1 < width else zero
                above = _fraction(z, depth[b, row - 1, column]) if row > 0 else zero
                below = _fraction(z, depth[b, row + 1, column]) if row + 1 < height else zero
                for c in range(channels):
                    w, e, value = (
                        weight[b, c, row, column],
                        residual[b, c, row, column],
                        images[b, c, row, column],
                    )
                    if w == 0 and e == 0:
                        continue
                    by_x, by_y = zero, zero
                    if right > 0:
                        by_x += right * (images[b, c, row, column + 1] - value)
                    if left > 0:
                        by_x += left * (value - images[b, c, row, column - 1])
                    if below > 0:
                        by_y += below * (images[b, c, row + 1, column] - value)
                    if above > 0:
                        by_y += above * (value - images[b, c, row - 1, column])
                    for i in range(6):
                        jacobian[i] = -(by_x * u_x[i] + by_y * u_y[i])
                    for i in range(3):
                        jacobian[i] += shading_gradients[b, c, row, column, i]
                    if with_depth and c == channels - 1:
                        jacobian[0] += py
                        jacobian[1] -= px
                        jacobian[5] += 1
                    for i in range(6):
                        total[i] += jacobian[i] * e
                        for k in range(i + 1):
                            square[i, k] += w * jacobian[i] * jacobian[k]
        for i in range(6):  # slices would double the compile time
            gradient[b, band, i] = total[i]
            for k in range(6):
                hessian[b, band, i, k] = square[i, k]
