"""Ray traversal in Warp: one thread per ray, in two passes, which count the samples and write them.

In an empty cell or block of cells, a ray advances by whole steps to the last one that starts before it leaves; in
contracted space outside the inner cube, it advances step by step.
"""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._contraction_warp import contraction_functions
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
    """Make the function that samples a ray, which other kernels use too, and the kernel of `forward`."""
    scalar, vec3 = precision.scalar, precision.vec3
    row, vectors, cells = wp.array(dtype=scalar), wp.array(dtype=vec3), wp.array3d(dtype=wp.uint8)
    contraction = contraction_functions(scalar)
    max_norm, contract = contraction.max_norm, contraction.contract
    contracted_step = contraction.contracted_step

    @wp.func
    def exit_axis(x: scalar, inverse: scalar, width: scalar):
        within = x - wp.floor(x / width) * width
        if inverse > scalar(0.0):
            return (width - within) * inverse
        return -within * inverse

    @wp.func
    def distance_to_exit(p: vec3, inverse: vec3, width: scalar):
        """Return the distance to the exit of a cube of `width` cells."""
        return wp.min(
            exit_axis(p[0], inverse[0], width),
            wp.min(exit_axis(p[1], inverse[1], width), exit_axis(p[2], inverse[2], width)),
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
        t_near: scalar,
        t_far: scalar,
        offset: scalar,
        step: scalar,
        contracted: bool,
        ray: int,
        first: int,
        writes: bool,
        positions: vectors,
        distances: row,
        lengths: row,
        rays: wp.array(dtype=wp.int32),
    ):
        """Count the samples of a ray, and write them from `first` on, with their positions in the unit cube."""
        one = scalar(1.0)
        edge = vec3(scalar(occupied.shape[0]), scalar(occupied.shape[1]), scalar(occupied.shape[2]))
        center = wp.where(contracted, scalar(2.0), one)
        unit = edge / (scalar(2.0) * center)
        inverse = vec3(inverse_of(d[0] * unit[0]), inverse_of(d[1] * unit[1]), inverse_of(d[2] * unit[2]))
        found, t, length, i = int(0), scalar(t_near), scalar(step), scalar(0.0)
        while t < t_far:
            if contracted:
                length = contracted_step(o, d, t, step)
            t_sample = t_near + (i + offset) * length
            if contracted:
                t_sample = t + offset * length
            p = o + t_sample * d
            is_contracted, inner_exit = bool(False), scalar(1.0e30)
            if contracted:
                is_contracted = max_norm(p) > one
                if is_contracted:
                    p = contract(p)
                elif length == step:  # steps are uniform up to the end of the inner cube
                    inner_exit = distance_to_exit(
                        scalar(0.5) * (p + vec3(one, one, one)), scalar(2.0) * wp.cw_mul(unit, inverse), one
                    )
            p = wp.cw_mul(p + vec3(center, center, center), unit)
            inside = p[0] >= scalar(0.0) and p[1] >= scalar(0.0) and p[2] >= scalar(0.0)
            if inside and p[0] < edge[0] and p[1] < edge[1] and p[2] < edge[2]:
                a, b, c = int(p[0]), int(p[1]), int(p[2])
                if occupied[a, b, c] != wp.uint8(0):
                    if t_sample < t_far:
                        if writes and first + found < distances.shape[0]:
                            distances[first + found] = t_sample
                            lengths[first + found] = length
                            if positions.shape[0] > 0:
                                positions[first + found] = wp.cw_div(p, edge)
                                rays[first + found] = ray
                        found += 1
                elif not is_contracted and length == step:
                    width = one
                    if blocks[
                        a // wp.static(BLOCK), b // wp.static(BLOCK), c // wp.static(BLOCK)
                    ] == wp.uint8(0):
                        width = scalar(wp.static(float(BLOCK)))
                    exit_distance = wp.min(
                        wp.min(distance_to_exit(p, inverse, width), inner_exit), t_far - t_sample
                    )
                    skipped = wp.floor(exit_distance / length - one)  # one more step is added below
                    if skipped > scalar(0.0):
                        t += skipped * length
                        i += skipped
            t += length
            i += one
            if not contracted:
                t = t_near + i * length
        return found

    @precision.kernel
    def sample_all(
        occupied: cells,
        blocks: cells,
        origins: vectors,
        directions: vectors,
        t_near: row,
        t_far: row,
        steps: row,
        jitter: row,
        contracted: bool,
        writes: bool,
        counts: wp.array(dtype=wp.int32),
        offsets: wp.array(dtype=wp.int64),
        positions: vectors,
        distances: row,
        lengths: row,
    ):
        r = wp.tid()
        first = int(0)
        if writes:
            first = int(offsets[r])
        found = int(0)
        if steps[r] > scalar(0.0) and wp.isfinite(t_far[r] - t_near[r]):
            found = sample(
                occupied, blocks, origins[r], directions[r], t_near[r], t_far[r], jitter[r], steps[r], contracted,
                r, first, writes, positions, distances, lengths, counts,
            )  # fmt: skip
        if not writes:
            counts[r] = found

    return SimpleNamespace(sample=sample, sample_all=sample_all)
