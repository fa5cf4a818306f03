"""Ray traversal in Warp: one thread per ray, in two passes, which count the samples and write them.

In an empty cell or block of cells, a ray advances by whole steps to the last one that starts before it leaves; in
contracted space outside the inner cube, it advances step by step.
"""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision
from unrender.kernels.traverse.cells import BLOCK, CellGrid


def forward(
    grid: CellGrid,
    origins: Tensor,
    directions: Tensor,
    t_near: Tensor,
    t_far: Tensor,
    steps: Tensor,
    jitter: Tensor,
    capacity: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    rays, sample_all = len(t_near), traversal_functions(t_near.dtype).sample_all
    local = ((origins - grid.center) / grid.half_extent, directions / grid.half_extent)
    given = [
        *(t.contiguous().view(torch.uint8) for t in (grid.cells, grid.blocks)),
        *(t.contiguous() for t in (*local, t_near, t_far, steps, jitter)),
    ]
    counts = torch.zeros(rays, dtype=torch.int32, device=t_near.device)
    launch(sample_all, rays, *given, grid.contracted, False, counts, None, None, None, None)
    offsets = torch.cat([counts.new_zeros(1, dtype=torch.int64), counts.cumsum(0)])
    distances, lengths = t_near.new_empty(2, int(offsets[-1]) if capacity is None else capacity)
    launch(sample_all, rays, *given, grid.contracted, True, counts, offsets, None, distances, lengths)
    return distances, lengths, offsets


@per_precision("traverse")
def traversal_functions(precision: Precision) -> SimpleNamespace:
    """Make the functions that sample a ray, which other kernels use too, and the kernel of `forward`."""
    scalar, vec3 = precision.scalar, precision.vec3
    row, vectors, cells = wp.array(dtype=scalar), wp.array(dtype=vec3), wp.array3d(dtype=wp.uint8)

    @wp.func
    def largest_of(p: vec3):
        return wp.max(wp.abs(p[0]), wp.max(wp.abs(p[1]), wp.abs(p[2])))

    @wp.func
    def stride(o: vec3, d: vec3, t: scalar, step: scalar):
        """Return the length of the step that begins at distance t, in contracted space."""
        p, one, two = o + t * d, scalar(1.0), scalar(2.0)
        r = largest_of(p)
        if r <= one:
            return step
        along = d[2] * wp.sign(p[2])
        if r == wp.abs(p[0]):
            along = d[0] * wp.sign(p[0])
        elif r == wp.abs(p[1]):
            along = d[1] * wp.sign(p[1])
        velocity = d * ((two - one / r) / r) + p * (along * (two / r - two) / (r * r))
        length = wp.length(d)
        return wp.min(step * length / wp.length(velocity), r / (scalar(4.0) * length))

    @wp.func
    def leave_axis(x: scalar, inverse: scalar, wide: scalar):
        within = x - wp.floor(x / wide) * wide
        if inverse > scalar(0.0):
            return (wide - within) * inverse
        return -within * inverse

    @wp.func
    def leave(p: vec3, inverse: vec3, wide: scalar):
        """Return how far it is to the end of a cell, or of a block of so many."""
        return wp.min(
            leave_axis(p[0], inverse[0], wide),
            wp.min(leave_axis(p[1], inverse[1], wide), leave_axis(p[2], inverse[2], wide)),
        )

    @wp.func
    def inverse_of(velocity: scalar):
        if velocity == scalar(0.0):
            return scalar(1.0e30)
        return scalar(1.0) / velocity

    @wp.func
    def sample(
        occupied: cells,
        blocks: cells,
        o: vec3,
        d: vec3,
        near: scalar,
        far: scalar,
        offset: scalar,
        step: scalar,
        contracted: bool,
        ray: int,
        first: int,
        writes: bool,
        places: vectors,
        distances: row,
        lengths: row,
        rays: wp.array(dtype=wp.int32),
    ):
        """Return how many samples there are; write them, and where they are in the unit cube, from `first` on."""
        one = scalar(1.0)
        edge = vec3(scalar(occupied.shape[0]), scalar(occupied.shape[1]), scalar(occupied.shape[2]))
        center = wp.where(contracted, scalar(2.0), one)
        unit = edge / (scalar(2.0) * center)
        inverse = vec3(inverse_of(d[0] * unit[0]), inverse_of(d[1] * unit[1]), inverse_of(d[2] * unit[2]))
        found, t, length, i = int(0), scalar(near), scalar(step), scalar(0.0)
        while t < far:
            if contracted:
                length = stride(o, d, t, step)
            here = near + (i + offset) * length
            if contracted:
                here = t + offset * length
            p = o + here * d
            bent, inner = bool(False), scalar(1.0e30)
            if contracted:
                r = largest_of(p)
                bent = r > one
                if bent:
                    p = p * ((scalar(2.0) - one / r) / r)
                elif length == step:  # steps are even up to the end of the inner cube
                    inner = leave(
                        scalar(0.5) * (p + vec3(one, one, one)), scalar(2.0) * wp.cw_mul(unit, inverse), one
                    )
            p = wp.cw_mul(p + vec3(center, center, center), unit)
            inside = p[0] >= scalar(0.0) and p[1] >= scalar(0.0) and p[2] >= scalar(0.0)
            if inside and p[0] < edge[0] and p[1] < edge[1] and p[2] < edge[2]:
                a, b, c = int(p[0]), int(p[1]), int(p[2])
                if occupied[a, b, c] != wp.uint8(0):
                    if here < far:
                        if writes and first + found < distances.shape[0]:
                            distances[first + found] = here
                            lengths[first + found] = length
                            if places.shape[0] > 0:
                                places[first + found] = wp.cw_div(p, edge)
                                rays[first + found] = ray
                        found += 1
                elif not bent and length == step:
                    wide = one
                    if blocks[
                        a // wp.static(BLOCK), b // wp.static(BLOCK), c // wp.static(BLOCK)
                    ] == wp.uint8(0):
                        wide = scalar(wp.static(float(BLOCK)))
                    out = wp.min(wp.min(leave(p, inverse, wide), inner), far - here)
                    leap = wp.floor(out / length - one)  # one more step is added below
                    if leap > scalar(0.0):
                        t += leap * length
                        i += leap
            t += length
            i += one
            if not contracted:
                t = near + i * length
        return found

    @precision.kernel
    def sample_all(
        occupied: cells,
        blocks: cells,
        origins: vectors,
        directions: vectors,
        near: row,
        far: row,
        steps: row,
        jitter: row,
        contracted: bool,
        writes: bool,
        counts: wp.array(dtype=wp.int32),
        offsets: wp.array(dtype=wp.int64),
        places: vectors,
        distances: row,
        lengths: row,
    ):
        r = wp.tid()
        first = int(0)
        if writes:
            first = int(offsets[r])
        found = int(0)
        if steps[r] > scalar(0.0) and wp.isfinite(far[r] - near[r]):
            found = sample(
                occupied, blocks, origins[r], directions[r], near[r], far[r], jitter[r], steps[r], contracted,
                r, first, writes, places, distances, lengths, counts,
            )  # fmt: skip
        if not writes:
            counts[r] = found

    return SimpleNamespace(sample=sample, sample_all=sample_all)
