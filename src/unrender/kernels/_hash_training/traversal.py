"""Samples along rays, in occupied cells only: counted first, then written one ray after another."""

from types import SimpleNamespace

import torch
import warp as wp

from unrender.kernels._hash_training import NUM_RAYS, STEP
from unrender.kernels._warp import Precision, per_precision
from unrender.kernels.traverse.gpu import traversal_functions


@per_precision("hash_training.traversal")
def traversal_kernels(precision: Precision) -> SimpleNamespace:
    """Make the kernels that look along rays; see `traverse`."""
    walk = traversal_functions(torch.float32).sample

    @wp.func
    def ends_of(
        o: wp.vec3, d: wp.vec3, box: wp.array(dtype=wp.vec3), contracted: bool, near: float, far: float
    ):
        """Return between which distances a ray may meet an occupied cell; nothing is met by one without direction."""
        begin, end = near, far
        if not contracted:
            low, high = box[0], box[1]
            for axis in range(3):
                if d[axis] == 0.0:
                    if o[axis] < low[axis] or o[axis] > high[axis]:
                        end = begin
                else:
                    one, other = (low[axis] - o[axis]) / d[axis], (high[axis] - o[axis]) / d[axis]
                    begin, end = wp.max(begin, wp.min(one, other)), wp.min(end, wp.max(one, other))
        if not wp.dot(d, d) > 0.0:
            end = begin
        return wp.vec2(begin, end)

    @precision.kernel
    def traverse(
        counts: wp.array(dtype=wp.int32),
        numbers: wp.array(dtype=wp.float32),
        occupied: wp.array3d(dtype=wp.uint8),
        blocks: wp.array3d(dtype=wp.uint8),
        box: wp.array(dtype=wp.vec3),
        center: wp.array(dtype=wp.vec3),
        half_side: float,
        near: float,
        far: float,
        contracted: bool,
        origins: wp.array(dtype=wp.vec3),
        directions: wp.array(dtype=wp.vec3),
        jitter: wp.array(dtype=wp.float32),
        writes: bool,
        offsets: wp.array(dtype=wp.int32),
        per_ray: wp.array(dtype=wp.int32),
        places: wp.array(dtype=wp.vec3),
        distances: wp.array(dtype=wp.float32),
        lengths: wp.array(dtype=wp.float32),
        rays: wp.array(dtype=wp.int32),
    ):
        """Fill how many samples each ray has; or, once it is known where they go, the samples, if there is room."""
        r = wp.tid()
        if r >= counts[wp.static(NUM_RAYS)]:
            if not writes:
                per_ray[r] = 0
            return
        if writes and (offsets[r + 1] > places.shape[0] or offsets[r + 1] == offsets[r]):
            return
        if not numbers[wp.static(STEP)] > 0.0:  # no step would end
            per_ray[r] = 0
            return
        o, d = (origins[r] - center[0]) / half_side, directions[r] / half_side
        ends = ends_of(o, d, box, contracted, near, far)
        first = int(0)
        if writes:
            first = offsets[r]
        found = walk(
            occupied, blocks, o, d, ends[0], ends[1], jitter[r], numbers[wp.static(STEP)], contracted,
            r, first, writes, places, distances, lengths, rays,
        )  # fmt: skip
        if not writes:
            per_ray[r] = found

    return SimpleNamespace(traverse=traverse)
