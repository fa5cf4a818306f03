"""Samples along rays, in occupied cells only: counted first, then written one ray after another."""

from types import SimpleNamespace

import warp as wp

from unrender.kernels._hash_training import NUM_RAYS, STEP
from unrender.kernels._warp import Precision, per_precision
from unrender.kernels.walk_space.blocks import BLOCK


@per_precision("hash_training.traversal")
def traversal_kernels(precision: Precision) -> SimpleNamespace:
    """Make the kernels that look along rays; see `walk_space`."""
    block = wp.constant(BLOCK)

    @wp.func
    def stride(o: wp.vec3, d: wp.vec3, t: float, step: float):
        """Return the length of the step that begins at distance t, in contracted space."""
        p = o + t * d
        r = wp.max(wp.abs(p[0]), wp.max(wp.abs(p[1]), wp.abs(p[2])))
        if r <= 1.0:
            return step
        along = float(0.0)
        if r == wp.abs(p[0]):
            along = d[0] * wp.sign(p[0])
        elif r == wp.abs(p[1]):
            along = d[1] * wp.sign(p[1])
        else:
            along = d[2] * wp.sign(p[2])
        velocity = d * ((2.0 - 1.0 / r) / r) + p * (along * (2.0 / r - 2.0) / (r * r))
        length = wp.length(d)
        return wp.min(step * length / wp.length(velocity), r / (4.0 * length))

    @wp.func
    def leave_axis(x: float, inverse: float, wide: float):
        x = x - wp.floor(x / wide) * wide
        if inverse > 0.0:
            return (wide - x) * inverse
        return -x * inverse

    @wp.func
    def leave(p: wp.vec3, inverse: wp.vec3, wide: float):
        """Return how far it is to the end of a cell, or of a block of so many."""
        return wp.min(
            leave_axis(p[0], inverse[0], wide),
            wp.min(leave_axis(p[1], inverse[1], wide), leave_axis(p[2], inverse[2], wide)),
        )

    @wp.func
    def inverse_of(velocity: float):
        if velocity == 0.0:
            return float(1.0e30)
        return 1.0 / velocity

    @wp.func
    def walk(
        occupied: wp.array3d(dtype=wp.uint8),
        blocks: wp.array3d(dtype=wp.uint8),
        o: wp.vec3,
        d: wp.vec3,
        near: float,
        far: float,
        offset: float,
        step: float,
        contracted: bool,
        ray: int,
        first: int,
        writes: bool,
        places: wp.array(dtype=wp.vec3),
        distances: wp.array(dtype=wp.float32),
        lengths: wp.array(dtype=wp.float32),
        rays: wp.array(dtype=wp.int32),
    ):
        size = occupied.shape[0]
        unit = float(size) / wp.where(contracted, 4.0, 2.0)
        center = wp.where(contracted, 2.0, 1.0)
        inverse = wp.vec3(inverse_of(d[0] * unit), inverse_of(d[1] * unit), inverse_of(d[2] * unit))
        found, t, length = int(0), float(near), float(step)
        while t < far:
            if contracted:
                length = stride(o, d, t, step)
            here = t + offset * length
            p = o + here * d
            bent, inner = bool(False), float(1.0e30)
            if contracted:
                r = wp.max(wp.abs(p[0]), wp.max(wp.abs(p[1]), wp.abs(p[2])))
                bent = r > 1.0
                if bent:
                    p = p * ((2.0 - 1.0 / r) / r)
                elif length == step:  # steps are even up to the end of the inner cube
                    inner = leave(0.5 * (p + wp.vec3(1.0, 1.0, 1.0)), 2.0 * unit * inverse, 1.0)
            p = (p + wp.vec3(center, center, center)) * unit
            edge = float(size)
            if p[0] >= 0.0 and p[1] >= 0.0 and p[2] >= 0.0 and p[0] < edge and p[1] < edge and p[2] < edge:
                i, j, k = int(p[0]), int(p[1]), int(p[2])
                if occupied[i, j, k] != wp.uint8(0):
                    if here < far:
                        if writes:
                            places[first + found] = p / edge
                            distances[first + found] = here
                            lengths[first + found] = length
                            rays[first + found] = ray
                        found += 1
                elif not bent and length == step:
                    wide = float(1.0)
                    if blocks[i // block, j // block, k // block] == wp.uint8(0):
                        wide = float(block)
                    out = wp.min(wp.min(leave(p, inverse, wide), inner), far - here)
                    leap = wp.floor(out / length - 1.0)  # one more step is added below
                    if leap > 0.0:
                        t += leap * length
            t += length
        return found

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
