"""What rays see: features of samples, inputs of the color network, light along rays with its loss, and the way back.

Activations lie channel by channel, in half precision (or single, for tests); densities and light are in single
precision. Gradients are multiplied by a scale, so that small ones can be told apart in half precision.
"""

from types import SimpleNamespace

import torch
import warp as wp

from unrender.kernels._hash_training import BAD, DROPPED, LOSS_SCALE, NUM_RAYS, NUM_SAMPLES
from unrender.kernels._warp import Precision, per_precision
from unrender.kernels.hash_grid.gpu import entry_of, point_functions

MAX_LOG_DENSITY = wp.constant(15.0)
"""In units of 1 / step: e^15 lets nothing through."""
LEAST_LIGHT = wp.constant(1.0e-4)
"""Samples that less light than this reaches are left out."""
TOGETHER = 4
"""Samples that one thread takes on the way back to the table."""


def light_kernels(half: torch.dtype) -> SimpleNamespace:
    """Return the kernels for activations in single or half precision."""
    return _light_kernels(torch.float32, half.itemsize)


@per_precision("hash_training.light")
def _light_kernels(precision: Precision, active_bytes: int) -> SimpleNamespace:
    active = wp.float16 if active_bytes == 2 else wp.float32
    corners_of = wp.types.vector(16, wp.float32)
    points_of = point_functions(wp.float32)
    inside, cell_of, share = points_of.inside, points_of.cell_of, points_of.share

    @precision.kernel
    def encode(
        counts: wp.array(dtype=wp.int32),
        places: wp.array(dtype=wp.vec3),
        table: wp.array(dtype=wp.int64),
        levels: wp.array(dtype=wp.vec4i),
        features: wp.array2d(dtype=active),
    ):
        """Look up two features of each level; those of samples that are not there are 0."""
        n, i = wp.tid()
        mixed = wp.vec2(0.0, 0.0)
        if i < counts[wp.static(NUM_SAMPLES)]:
            level, p = levels[n], places[i]
            if inside(p):
                place = p * float(level[0])
                cell = cell_of(place, level[0])
                part = place - wp.vec3(float(cell[0]), float(cell[1]), float(cell[2]))
                for corner in range(8):
                    bits = wp.uint64(table[entry_of(cell, corner, level)])
                    mixed += share(part, corner) * wp.vec2(
                        wp.cast(wp.uint32(bits & wp.uint64(0xFFFFFFFF)), wp.float32),
                        wp.cast(wp.uint32(bits >> wp.uint64(32)), wp.float32),
                    )
        features[2 * n, i] = active(mixed[0])
        features[2 * n + 1, i] = active(mixed[1])

    @precision.kernel
    def color_inputs(
        counts: wp.array(dtype=wp.int32),
        geometry: wp.array2d(dtype=wp.float32),
        directions: wp.array(dtype=wp.vec3),
        rays: wp.array(dtype=wp.int32),
        found: wp.array2d(dtype=active),
    ):
        """Put together the geometry's numbers and the spherical harmonics of the direction up to degree 3."""
        i = wp.tid()
        if i >= counts[wp.static(NUM_SAMPLES)]:
            for c in range(32):
                found[c, i] = active(0.0)
            return
        for c in range(16):
            found[c, i] = active(geometry[c, i])
        d = directions[rays[i]]
        x, y, z = d[0], d[1], d[2]
        xx, yy, zz = x * x, y * y, z * z
        found[16, i] = active(0.28209479177387814)
        found[17, i] = active(-0.4886025119029199 * y)
        found[18, i] = active(0.4886025119029199 * z)
        found[19, i] = active(-0.4886025119029199 * x)
        found[20, i] = active(1.0925484305920792 * x * y)
        found[21, i] = active(-1.0925484305920792 * y * z)
        found[22, i] = active(0.31539156525252005 * (2.0 * zz - xx - yy))
        found[23, i] = active(-1.0925484305920792 * x * z)
        found[24, i] = active(0.5462742152960396 * (xx - yy))
        found[25, i] = active(-0.5900435899266435 * y * (3.0 * xx - yy))
        found[26, i] = active(2.890611442640554 * x * y * z)
        found[27, i] = active(-0.4570457994644658 * y * (4.0 * zz - xx - yy))
        found[28, i] = active(0.3731763325901154 * z * (2.0 * zz - 3.0 * xx - 3.0 * yy))
        found[29, i] = active(-0.4570457994644658 * x * (4.0 * zz - xx - yy))
        found[30, i] = active(1.445305721320277 * z * (xx - yy))
        found[31, i] = active(-0.5900435899266435 * x * (xx - 3.0 * yy))

    @wp.func
    def sigmoid(x: float):
        return 1.0 / (1.0 + wp.exp(-x))

    @precision.kernel
    def see(
        counts: wp.array(dtype=wp.int32),
        numbers: wp.array(dtype=wp.float32),
        offsets: wp.array(dtype=wp.int32),
        lengths: wp.array(dtype=wp.float32),
        distances: wp.array(dtype=wp.float32),
        places: wp.array(dtype=wp.vec3),
        geometry: wp.array2d(dtype=wp.float32),
        colors: wp.array2d(dtype=wp.float32),
        target: wp.array(dtype=wp.vec3),
        behind: wp.array(dtype=wp.vec3),
        directions: wp.array(dtype=wp.vec3),
        unit: float,
        distortion: float,
        half_side: float,
        entering: wp.array(dtype=wp.float32),
        largest: wp.array3d(dtype=wp.int32),
        loss: wp.array(dtype=wp.float32),
        to_behind: wp.array(dtype=wp.vec3),
        to_density: wp.array(dtype=active),
        to_colors: wp.array2d(dtype=active),
    ):
        """Fill the loss of each ray, and its slopes by the log densities and colors (before the sigmoid) of samples.

        `largest` [cells] is raised to the weights of samples, as bits of positive numbers.
        """
        r = wp.tid()
        loss[r] = 0.0
        to_behind[r] = wp.vec3(0.0, 0.0, 0.0)
        if r >= counts[wp.static(NUM_RAYS)]:
            return
        begin, end, d = offsets[r], offsets[r + 1], directions[r]
        if end > lengths.shape[0]:
            wp.atomic_add(counts, wp.static(DROPPED), 1)
            return
        if d[0] == 0.0 and d[1] == 0.0 and d[2] == 0.0:
            return
        side = largest.shape[0]
        left, seen, count = float(1.0), wp.vec3(0.0, 0.0, 0.0), int(0)
        covered, moment, spread = float(0.0), float(0.0), float(0.0)
        for k in range(begin, end):
            if left < LEAST_LIGHT:
                break
            depth = wp.exp(wp.min(geometry[0, k], MAX_LOG_DENSITY)) / unit * lengths[k]
            through = wp.exp(-depth)
            weight = left * (1.0 - through)
            color = wp.vec3(sigmoid(colors[0, k]), sigmoid(colors[1, k]), sigmoid(colors[2, k]))
            seen += weight * color
            entering[k] = left
            left *= through
            count += 1
            if distortion > 0.0:
                away = distances[k] + half_side
                s = distances[k] / away
                spread += 2.0 * weight * (s * covered - moment) + weight * weight * lengths[k] * half_side / (
                    3.0 * away * away
                )
                covered += weight
                moment += weight * s
            p = places[k] * float(side)
            last = side - 1
            x, y, z = wp.min(int(p[0]), last), wp.min(int(p[1]), last), wp.min(int(p[2]), last)
            bits = wp.cast(weight, wp.int32)
            if bits > largest[x, y, z]:
                wp.atomic_max(largest, x, y, z, bits)
        difference = seen + left * behind[r] - target[r]
        error = wp.dot(difference, difference) / 3.0
        loss[r] = error
        if not (wp.isfinite(error) and wp.isfinite(spread)):
            wp.atomic_max(counts, wp.static(BAD), 1)
            return
        scale = numbers[wp.static(LOSS_SCALE)] / float(counts[wp.static(NUM_RAYS)])
        slope = difference * (scale * 2.0 / 3.0)
        to_behind[r] = slope * left
        rest, pull = wp.dot(slope, behind[r]), scale * distortion
        covered_after, moment_after = float(0.0), float(0.0)
        for i in range(count):
            k = begin + count - 1 - i
            depth = wp.exp(wp.min(geometry[0, k], MAX_LOG_DENSITY)) / unit * lengths[k]
            through, light = wp.exp(-depth), entering[k]
            weight = light * (1.0 - through)
            color = wp.vec3(sigmoid(colors[0, k]), sigmoid(colors[1, k]), sigmoid(colors[2, k]))
            of_weight = wp.dot(slope, color)
            if distortion > 0.0:
                away = distances[k] + half_side
                s = distances[k] / away
                before, moment_before = covered - covered_after - weight, moment - moment_after - weight * s
                of_weight += pull * 2.0 * (
                    s * (before - covered_after) - moment_before + moment_after
                ) + pull * 2.0 / 3.0 * weight * lengths[k] * half_side / (away * away)
                covered_after += weight
                moment_after += weight * s
            to_density[k] = active(light * (of_weight - rest) * through * depth)
            rest = of_weight * (1.0 - through) + through * rest
            for c in range(3):
                to_colors[c, k] = active(weight * slope[c] * color[c] * (1.0 - color[c]))

    @wp.func
    def add_cell(cell: wp.vec3i, level: wp.vec4i, total: corners_of, sums: wp.array(dtype=wp.int64)):
        for corner in range(8):
            entry = 2 * entry_of(cell, corner, level)
            wp.atomic_add(sums, entry, wp.int64(total[2 * corner]))
            wp.atomic_add(sums, entry + 1, wp.int64(total[2 * corner + 1]))

    @precision.kernel
    def scatter(
        counts: wp.array(dtype=wp.int32),
        places: wp.array(dtype=wp.vec3),
        levels: wp.array(dtype=wp.vec4i),
        slopes: wp.array2d(dtype=active),
        units: float,
        sums: wp.array(dtype=wp.int64),
    ):
        """Add slopes by features to the entries, in so many units for each 1.

        A thread takes some samples, which follow one another along a ray: what lies in one cell is added up first.
        """
        n, group = wp.tid()
        begin = group * wp.static(TOGETHER)
        end = wp.min(begin + wp.static(TOGETHER), counts[wp.static(NUM_SAMPLES)])
        level, total, current, any_left = levels[n], corners_of(), wp.vec3i(-1, -1, -1), bool(False)
        for i in range(begin, end):
            first, second = float(slopes[2 * n, i]), float(slopes[2 * n + 1, i])
            p = places[i]
            if not (wp.isfinite(first) and wp.isfinite(second)):
                wp.atomic_max(counts, wp.static(BAD), 1)
            elif (first != 0.0 or second != 0.0) and inside(p):
                place = p * float(level[0])
                cell = cell_of(place, level[0])
                part = place - wp.vec3(float(cell[0]), float(cell[1]), float(cell[2]))
                if cell[0] != current[0] or cell[1] != current[1] or cell[2] != current[2]:
                    if any_left:
                        add_cell(current, level, total, sums)
                    current = cell
                    total = corners_of()
                any_left = True
                for corner in range(8):
                    weight = share(part, corner) * units
                    total[2 * corner] += weight * first
                    total[2 * corner + 1] += weight * second
        if any_left:
            add_cell(current, level, total, sums)

    return SimpleNamespace(encode=encode, color_inputs=color_inputs, see=see, scatter=scatter)
