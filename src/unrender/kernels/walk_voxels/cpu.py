"""Walk rays through sparse voxels: into buffers of their own, as much as the last rays needed, then side by side."""

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._batch import allocate
from unrender.kernels._contraction_cpu import contracted_step
from unrender.kernels._dispatch import cpu_threads
from unrender.kernels.march_voxels.cpu import RAYS, RELAXED, locate, way_out
from unrender.kernels.march_voxels.rays import GridRays, Strides
from unrender.kernels.march_voxels.reference import MAX_OPTICAL_DEPTH
from unrender.kernels.march_voxels.table import VoxelTable

_room_per_ray = 16


def forward(
    rays: GridRays, log_density: Tensor, table: VoxelTable, strides: Strides
) -> tuple[Tensor, Tensor, Tensor]:
    global _room_per_ray
    count, values = len(rays.near), log_density.contiguous().numpy()
    tensors = (rays.origins, rays.directions, rays.near, rays.far, rays.jitter)
    arrays = [t.contiguous().numpy() for t in tensors]
    limits = [values.dtype.type(value) for value in (strides.step, strides.skip, strides.stop)]
    chunks, used = (count + RAYS - 1) // RAYS, np.zeros(count, np.int64)
    needed = np.zeros(chunks, np.int64)
    raw = np.empty((table.num_voxels, 8), values.dtype)
    with cpu_threads(count * 8):
        _gather(table.corners.numpy(), values, raw)
        while True:
            space = RAYS * _room_per_ray
            distance, length = np.empty((2, chunks * space), values.dtype)
            _walk(
                *arrays, table.bricks.numpy(), table.voxels.numpy(), raw, *limits, strides.contracted, space,
                used, needed, distance, length,
            )  # fmt: skip
            enough = -(-int(needed.max(initial=0)) // RAYS)
            _room_per_ray = max(enough + enough // 4, 4)
            if enough * RAYS <= space:
                break
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(used)])
        packed = [allocate(log_density, int(offsets[-1])) for _ in range(2)]
        for source, target in zip((distance, length), packed, strict=True):
            _pack(source, space, offsets, target.numpy())
    return packed[0], packed[1], torch.from_numpy(offsets)


@numba.njit(cache=True, parallel=True)
def _gather(corners, values, gathered):
    for c in numba.prange((corners.shape[0] + 4095) // 4096):
        for v in range(c * 4096, min(corners.shape[0], (c + 1) * 4096)):
            for q in range(8):
                gathered[v, q] = values[corners[v, q]]


@numba.njit(cache=True, parallel=True)
def _pack(source, space, offsets, target):
    """Move the samples of each chunk of rays to where those of the one before end."""
    count = len(offsets) - 1
    for c in numba.prange((count + RAYS - 1) // RAYS):
        begin, end = offsets[c * RAYS], offsets[min(count, (c + 1) * RAYS)]
        target[begin:end] = source[c * space : c * space + end - begin]


@numba.njit(cache=True, parallel=True, fastmath=RELAXED, error_model="numpy")
def _walk(
    origins, directions, near, far, jitter, bricks, voxels, raw, step, skip, stop, contracted,
    space, used, needed, distance, lengths,
):  # fmt: skip
    count, real = origins.shape[0], origins.dtype.type
    zero, one, deepest, size = real(0), real(1), real(MAX_OPTICAL_DEPTH), real(4 * bricks.shape[0])
    last_x, last_y, last_z = (
        np.int32(4 * bricks.shape[0] - 1), np.int32(4 * bricks.shape[1] - 1), np.int32(4 * bricks.shape[2] - 1)
    )  # fmt: skip
    for c in numba.prange((count + RAYS - 1) // RAYS):
        s, end = c * space, (c + 1) * space
        for r in range(c * RAYS, min(count, (c + 1) * RAYS)):
            ox, oy, oz = origins[r, 0], origins[r, 1], origins[r, 2]
            dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
            first, left, t, until, offset = s, one, near[r], far[r], jitter[r]
            while t < until and left > stop:
                length = contracted_step(ox, oy, oz, dx, dy, dz, t, step) if contracted else step
                here = t + offset * length
                x, y, z = locate(ox, oy, oz, dx, dy, dz, here, contracted, size)
                i = min(max(np.int32(x), np.int32(0)), last_x)
                j = min(max(np.int32(y), np.int32(0)), last_y)
                k = min(max(np.int32(z), np.int32(0)), last_z)
                b = bricks[i >> 2, j >> 2, k >> 2]
                if b < 0:
                    steps = one
                    if not contracted:
                        out = min(
                            way_out(x, dx, i >> 2, -b),
                            way_out(y, dy, j >> 2, -b),
                            way_out(z, dz, k >> 2, -b),
                        )
                        steps = real(np.floor(max(out, zero) / step)) + one
                    t += steps * length
                    continue
                t += length
                v = voxels[b, ((i & 3) << 4) | ((j & 3) << 2) | (k & 3)]
                if v < 0:
                    continue
                value = _mix(raw, v, x - real(i), y - real(j), z - real(k))
                through = np.exp(-min(length * np.exp(value), deepest))
                if left * (one - through) < skip:
                    continue
                left *= through
                if s < end:
                    distance[s], lengths[s] = here, length
                s += 1
            used[r] = s - first
        needed[c] = s - c * space


@numba.njit(inline="always", fastmath=RELAXED, error_model="numpy")
def _mix(raw, v, fx, fy, fz):
    """Interpolate between the corners of a voxel."""
    gz = 1 - fz
    low, high = raw[v, 0] * gz + raw[v, 1] * fz, raw[v, 2] * gz + raw[v, 3] * fz
    front = low + fy * (high - low)
    low, high = raw[v, 4] * gz + raw[v, 5] * fz, raw[v, 6] * gz + raw[v, 7] * fz
    return front + fx * (low + fy * (high - low) - front)
