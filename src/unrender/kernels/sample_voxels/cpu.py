"""Trilinear interpolation in a sparse voxel grid, parallel over points."""

import numba
from torch import Tensor

from unrender.kernels._batch import allocate
from unrender.kernels._dispatch import cpu_threads
from unrender.kernels.march_voxels.table import VoxelTable

BLOCK = 1024
"""Points per task."""


def forward(values: Tensor, points: Tensor, table: VoxelTable, outside: float) -> Tensor:
    found = allocate(values, len(points))
    arrays = [t.contiguous().numpy() for t in (values, points, table.bricks, table.voxels, table.corners)]
    with cpu_threads(len(points)):
        _interpolate(*arrays, found.numpy().dtype.type(outside), found.numpy())
    return found


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath={"contract"})
def _interpolate(values, points, bricks, voxels, corners, outside, found):
    count, real = len(points), values.dtype.type
    width, height, depth = 4 * bricks.shape[0], 4 * bricks.shape[1], 4 * bricks.shape[2]
    for c in numba.prange((count + BLOCK - 1) // BLOCK):
        for p in range(c * BLOCK, min(count, (c + 1) * BLOCK)):
            x, y, z = points[p, 0], points[p, 1], points[p, 2]
            found[p] = outside
            if not (0 <= x <= width and 0 <= y <= height and 0 <= z <= depth):
                continue
            i, j, k = min(int(x), width - 1), min(int(y), height - 1), min(int(z), depth - 1)
            b = bricks[i >> 2, j >> 2, k >> 2]
            v = voxels[b, ((i & 3) << 4) | ((j & 3) << 2) | (k & 3)] if b >= 0 else -1
            if v < 0:
                continue
            fx, fy, fz = real(x - i), real(y - j), real(z - k)
            gx, gy, gz = real(1) - fx, real(1) - fy, real(1) - fz
            near = gy * (gz * values[corners[v, 0]] + fz * values[corners[v, 1]])
            near += fy * (gz * values[corners[v, 2]] + fz * values[corners[v, 3]])
            far = gy * (gz * values[corners[v, 4]] + fz * values[corners[v, 5]])
            far += fy * (gz * values[corners[v, 6]] + fz * values[corners[v, 7]])
            found[p] = gx * near + fx * far
