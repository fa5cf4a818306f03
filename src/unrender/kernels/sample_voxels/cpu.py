"""Look-up in a sparse grid of voxels: points are spread over the threads."""

import numba
from torch import Tensor

from unrender.kernels._batch import allocate
from unrender.kernels._dispatch import cpu_threads
from unrender.kernels.march_voxels.table import VoxelTable

POINTS = 1024
"""That one thread takes at a time."""


def forward(values: Tensor, places: Tensor, table: VoxelTable, outside: float) -> Tensor:
    found = allocate(values, len(places))
    arrays = [t.contiguous().numpy() for t in (values, places, table.bricks, table.voxels, table.corners)]
    with cpu_threads(len(places)):
        _look_up(*arrays, found.numpy().dtype.type(outside), found.numpy())
    return found


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath={"contract"})
def _look_up(values, places, bricks, voxels, corners, outside, found):
    count, real = len(places), values.dtype.type
    width, height, depth = 4 * bricks.shape[0], 4 * bricks.shape[1], 4 * bricks.shape[2]
    for c in numba.prange((count + POINTS - 1) // POINTS):
        for p in range(c * POINTS, min(count, (c + 1) * POINTS)):
            x, y, z = places[p, 0], places[p, 1], places[p, 2]
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
