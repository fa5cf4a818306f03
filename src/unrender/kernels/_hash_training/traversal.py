"""Candidates: samples along rays in occupied cells, counted first, then written ray by ray."""

from types import SimpleNamespace

import torch
import warp as wp

from unrender.kernels._hash_training import NUM_RAYS, STEP
from unrender.kernels._warp import Precision, per_precision
from unrender.kernels.traverse.gpu import traversal_functions


@per_precision("hash_training.traversal")
def traversal_kernels(precision: Precision) -> SimpleNamespace:
    """Make the kernel that samples rays; see `kernels.traverse`."""
    sample = traversal_functions(torch.float32).sample

    @wp.func
    def interval_of(
        o: wp.vec3, d: wp.vec3, box: wp.array(dtype=wp.vec3), contracted: bool, t_near: float, t_far: float
    ):
        """Return t_near and t_far of the box of occupied cells; the interval is empty for a direction of 0."""
        start, end = t_near, t_far
        if not contracted:
            low, high = box[0], box[1]
            for axis in range(3):
                if d[axis] == 0.0:
                    if o[axis] < low[axis] or o[axis] > high[axis]:
                        end = start
                else:
                    one, other = (low[axis] - o[axis]) / d[axis], (high[axis] - o[axis]) / d[axis]
                    start, end = wp.max(start, wp.min(one, other)), wp.min(end, wp.max(one, other))
        if not wp.dot(d, d) > 0.0:
            end = start
        return wp.vec2(start, end)

    @precision.kernel
    def traverse(
        counters: wp.array(dtype=wp.int32),
        scalars: wp.array(dtype=wp.float32),
        occupied: wp.array3d(dtype=wp.uint8),
        blocks: wp.array3d(dtype=wp.uint8),
        box: wp.array(dtype=wp.vec3),
        center: wp.array(dtype=wp.vec3),
        half_extent: float,
        t_near: float,
        t_far: float,
        contracted: bool,
        origins: wp.array(dtype=wp.vec3),
        directions: wp.array(dtype=wp.vec3),
        jitter: wp.array(dtype=wp.float32),
        writes: bool,
        offsets: wp.array(dtype=wp.int32),
        per_ray: wp.array(dtype=wp.int32),
        positions: wp.array(dtype=wp.vec3),
        distances: wp.array(dtype=wp.float32),
        lengths: wp.array(dtype=wp.float32),
        rays: wp.array(dtype=wp.int32),
    ):
        """Count the candidates of each ray or, in a second launch, write them, if all of a ray fit."""
        r = wp.tid()
        if r >= counters[wp.static(NUM_RAYS)]:
            if not writes:
                per_ray[r] = 0
            return
        if writes and (offsets[r + 1] > positions.shape[0] or offsets[r + 1] == offsets[r]):
            return
        if not scalars[wp.static(STEP)] > 0.0:  # the traversal would not end
            per_ray[r] = 0
            return
        o, d = (origins[r] - center[0]) / half_extent, directions[r] / half_extent
        interval = interval_of(o, d, box, contracted, t_near, t_far)
        first = int(0)
        if writes:
            first = offsets[r]
        found = sample(
            occupied, blocks, o, d, interval[0], interval[1], jitter[r], scalars[wp.static(STEP)], contracted,
            r, first, writes, positions, distances, lengths, rays,
        )  # fmt: skip
        if not writes:
            per_ray[r] = found

    return SimpleNamespace(traverse=traverse)
