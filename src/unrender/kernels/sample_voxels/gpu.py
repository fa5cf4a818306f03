"""Trilinear interpolation in a sparse voxel grid, with one thread per point."""

from types import SimpleNamespace

import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision
from unrender.kernels.march_voxels.table import VoxelTable


def forward(values: Tensor, points: Tensor, table: VoxelTable, outside: float) -> Tensor:
    found = values.new_empty(len(points))
    arrays = [t.contiguous() for t in (values, points, table.bricks, table.voxels, table.corners)]
    launch(_kernels(values.dtype).sample, len(points), *arrays, outside, found)
    return found


@wp.func
def voxel_at(bricks: wp.array3d(dtype=wp.int32), voxels: wp.array2d(dtype=wp.int32), i: int, j: int, k: int):
    """Return the index of the voxel at a cell of the grid, or −1."""
    brick = bricks[i >> 2, j >> 2, k >> 2]
    if brick < 0:
        return -1
    return voxels[brick, ((i & 3) << 4) | ((j & 3) << 2) | (k & 3)]


@per_precision("sample_voxels")
def _kernels(precision: Precision) -> SimpleNamespace:
    scalar, vec3 = precision.scalar, precision.vec3

    @precision.kernel
    def sample(
        values: wp.array(dtype=scalar),
        points: wp.array(dtype=vec3),
        bricks: wp.array3d(dtype=wp.int32),
        voxels: wp.array2d(dtype=wp.int32),
        corners: wp.array2d(dtype=wp.int32),
        outside: scalar,
        found: wp.array(dtype=scalar),
    ):
        n = wp.tid()
        p, zero, one, mixed = points[n], scalar(0.0), scalar(1.0), outside
        x, y, z = 4 * bricks.shape[0], 4 * bricks.shape[1], 4 * bricks.shape[2]
        low = p[0] >= zero and p[1] >= zero and p[2] >= zero
        if low and p[0] <= scalar(x) and p[1] <= scalar(y) and p[2] <= scalar(z):
            i, j, k = wp.min(int(p[0]), x - 1), wp.min(int(p[1]), y - 1), wp.min(int(p[2]), z - 1)
            v = voxel_at(bricks, voxels, i, j, k)
            if v >= 0:
                fraction = p - vec3(scalar(i), scalar(j), scalar(k))
                mixed = zero
                for q in range(8):
                    w_x = wp.where((q >> 2) == 1, fraction[0], one - fraction[0])
                    w_y = wp.where(((q >> 1) & 1) == 1, fraction[1], one - fraction[1])
                    w_z = wp.where((q & 1) == 1, fraction[2], one - fraction[2])
                    mixed += w_x * w_y * w_z * values[corners[v, q]]
        found[n] = mixed

    return SimpleNamespace(sample=sample)
