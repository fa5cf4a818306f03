"""Hash-grid features, visible samples, inputs of the color network, compositing with its loss, and the backward pass.

Activations are stored channel by channel, in half precision (or single, for tests); densities and transmittance are in
single precision. Gradients are scaled, so that small ones do not underflow in half precision.
"""

from types import SimpleNamespace

import torch
import warp as wp

from unrender.kernels._hash_training import (
    DROPPED_RAYS,
    LOSS_SCALE,
    NOT_FINITE,
    NUM_CANDIDATES,
    NUM_RAYS,
    NUM_SAMPLES,
)
from unrender.kernels._warp import Precision, per_precision
from unrender.kernels.hash_grid.gpu import entry_of, point_functions

MAX_LOG_DENSITY = wp.constant(15.0)
"""In units of 1 / step: e^15 is opaque."""
MIN_TRANSMITTANCE = wp.constant(1.0e-4)
"""Rays end where the transmittance is lower."""
DEPTH_TOLERANCE = wp.constant(0.02)
"""Of the depth loss."""
EXPOSURE_UNITS = 2.0**40
"""Fixed-point units to 1 in gradients of exposures, which are sums over rays."""
MAX_EXPOSURE_GRADIENT = wp.constant(16.0)
"""Largest term of such a sum, which 2^18 of them do not overflow."""
SAMPLES_PER_THREAD = 4
"""Of consecutive samples, gradients of the same cell are summed before they are added to the table."""


def rendering_kernels(half: torch.dtype) -> SimpleNamespace:
    """Return the kernels for activations in single or half precision."""
    return _rendering_kernels(torch.float32, half.itemsize)


@per_precision("hash_training.rendering")
def _rendering_kernels(precision: Precision, active_bytes: int) -> SimpleNamespace:
    is_half = active_bytes == 2
    active = wp.float16 if is_half else wp.float32
    packed = wp.int32 if is_half else wp.int64
    functions = point_functions(wp.float32)
    inside, cell_of, corner_weight = functions.inside, functions.cell_of, functions.corner_weight

    if is_half:

        @wp.func
        def unpack(entry: packed):
            bits = wp.uint32(entry)
            return wp.vec2(
                float(wp.cast(wp.uint16(bits & wp.uint32(0xFFFF)), wp.float16)),
                float(wp.cast(wp.uint16(bits >> wp.uint32(16)), wp.float16)),
            )

    else:

        @wp.func
        def unpack(entry: packed):
            bits = wp.uint64(entry)
            return wp.vec2(
                wp.cast(wp.uint32(bits & wp.uint64(0xFFFFFFFF)), wp.float32),
                wp.cast(wp.uint32(bits >> wp.uint64(32)), wp.float32),
            )

    @precision.kernel
    def encode(
        counters: wp.array(dtype=wp.int32),
        positions: wp.array(dtype=wp.vec3),
        table: wp.array(dtype=packed),
        levels: wp.array(dtype=wp.vec4i),
        features: wp.array2d(dtype=active),
    ):
        """Interpolate two features of each level at candidates; columns without a candidate become 0."""
        n, i = wp.tid()
        mixed = wp.vec2(0.0, 0.0)
        if i < counters[wp.static(NUM_CANDIDATES)]:
            level, p = levels[n], positions[i]
            if inside(p):
                scaled = p * float(level[0])
                cell = cell_of(scaled, level[0])
                fraction = scaled - wp.vec3(float(cell[0]), float(cell[1]), float(cell[2]))
                for corner in range(8):
                    mixed += corner_weight(fraction, corner) * unpack(table[entry_of(cell, corner, level)])
        features[2 * n, i] = active(mixed[0])
        features[2 * n + 1, i] = active(mixed[1])

    @precision.kernel
    def select_visible(
        counters: wp.array(dtype=wp.int32),
        offsets: wp.array(dtype=wp.int32),
        geometry: wp.array2d(dtype=wp.float32),
        lengths: wp.array(dtype=wp.float32),
        density_unit: float,
        min_weight: float,
        writes: bool,
        visible_offsets: wp.array(dtype=wp.int32),
        per_ray: wp.array(dtype=wp.int32),
        positions: wp.array(dtype=wp.vec3),
        distances: wp.array(dtype=wp.float32),
        rays: wp.array(dtype=wp.int32),
        sources: wp.array(dtype=wp.int32),
        visible_positions: wp.array(dtype=wp.vec3),
        visible_distances: wp.array(dtype=wp.float32),
        visible_lengths: wp.array(dtype=wp.float32),
        visible_rays: wp.array(dtype=wp.int32),
    ):
        """Count the candidates of each ray whose weight is large enough or, in a second launch, copy them."""
        r = wp.tid()
        found = int(0)
        if r < counters[wp.static(NUM_RAYS)] and offsets[r + 1] <= lengths.shape[0]:
            first = int(0)
            if writes:
                first = visible_offsets[r]
                if visible_offsets[r + 1] > visible_lengths.shape[0]:
                    return
            transmittance = float(1.0)
            for k in range(offsets[r], offsets[r + 1]):
                if transmittance < MIN_TRANSMITTANCE:
                    break
                depth = wp.exp(wp.min(geometry[0, k], MAX_LOG_DENSITY)) / density_unit * lengths[k]
                remaining = transmittance * wp.exp(-depth)
                if not transmittance - remaining < min_weight:  # NaN is kept, so that it is noticed
                    if writes:
                        at = first + found
                        sources[at] = k
                        visible_positions[at] = positions[k]
                        visible_distances[at] = distances[k]
                        visible_lengths[at] = lengths[k]
                        visible_rays[at] = rays[k]
                    found += 1
                transmittance = remaining
        if not writes:
            per_ray[r] = found

    @precision.kernel
    def color_inputs(
        counters: wp.array(dtype=wp.int32),
        geometry: wp.array2d(dtype=wp.float32),
        directions: wp.array(dtype=wp.vec3),
        rays: wp.array(dtype=wp.int32),
        found: wp.array2d(dtype=active),
    ):
        """Concatenate the geometry features and the spherical harmonics of the direction up to degree 3."""
        i = wp.tid()
        if i >= counters[wp.static(NUM_SAMPLES)]:
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

    @wp.func
    def nearness(distance: float, known: float):
        """Return what a weight at a distance counts for in the depth loss; see `losses.depth`."""
        return 1.0 / (1.0 + wp.abs(distance - known) / (DEPTH_TOLERANCE * known))

    @precision.kernel
    def composite(
        counters: wp.array(dtype=wp.int32),
        scalars: wp.array(dtype=wp.float32),
        candidate_offsets: wp.array(dtype=wp.int32),
        candidate_capacity: int,
        offsets: wp.array(dtype=wp.int32),
        lengths: wp.array(dtype=wp.float32),
        distances: wp.array(dtype=wp.float32),
        positions: wp.array(dtype=wp.vec3),
        geometry: wp.array2d(dtype=wp.float32),
        colors: wp.array2d(dtype=wp.float32),
        target: wp.array(dtype=wp.vec3),
        background: wp.array(dtype=wp.vec3),
        directions: wp.array(dtype=wp.vec3),
        known: wp.array(dtype=wp.float32),
        depth_fraction: float,
        depth_weight: float,
        frame: wp.array(dtype=wp.int32),
        exposures: wp.array(dtype=wp.vec3),
        density_unit: float,
        distortion: float,
        half_extent: float,
        exposure_sums: wp.array2d(dtype=wp.int64),
        transmittances: wp.array(dtype=wp.float32),
        max_weights: wp.array3d(dtype=wp.int32),
        loss: wp.array(dtype=wp.float32),
        grad_background: wp.array(dtype=wp.vec3),
        grad_log_density: wp.array(dtype=active),
        grad_colors: wp.array2d(dtype=active),
    ):
        """Compute the loss of each ray and its gradients by log densities and by colors before the sigmoid.

        Rays of known depth have the depth loss instead of an error of colors. `exposures` may be empty; their gradients
        are added to `exposure_sums`, in fixed point and without the loss scale. `max_weights` [cells] becomes the
        maximum of the weights of samples, compared as bits of positive numbers.
        """
        r = wp.tid()
        loss[r] = 0.0
        grad_background[r] = wp.vec3(0.0, 0.0, 0.0)
        if r >= counters[wp.static(NUM_RAYS)]:
            return
        begin, end, d = offsets[r], offsets[r + 1], directions[r]
        if end > lengths.shape[0] or candidate_offsets[r + 1] > candidate_capacity:
            wp.atomic_add(counters, wp.static(DROPPED_RAYS), 1)
            return
        if d[0] == 0.0 and d[1] == 0.0 and d[2] == 0.0:
            return
        side = max_weights.shape[0]
        transmittance, output, count = float(1.0), wp.vec3(0.0, 0.0, 0.0), int(0)
        opacity, moment, distortion_loss = float(0.0), float(0.0), float(0.0)
        target_distance, depth_term = known[r], float(0.0)
        for k in range(begin, end):
            if transmittance < MIN_TRANSMITTANCE:
                break
            depth = wp.exp(wp.min(geometry[0, k], MAX_LOG_DENSITY)) / density_unit * lengths[k]
            remaining = wp.exp(-depth)
            weight = transmittance * (1.0 - remaining)
            color = wp.vec3(sigmoid(colors[0, k]), sigmoid(colors[1, k]), sigmoid(colors[2, k]))
            output += weight * color
            transmittances[k] = transmittance
            transmittance *= remaining
            count += 1
            if target_distance > 0.0:
                depth_term += weight * nearness(distances[k], target_distance)
            if distortion > 0.0:
                denominator = distances[k] + half_extent
                s = distances[k] / denominator
                distortion_loss += 2.0 * weight * (s * opacity - moment) + weight * weight * lengths[
                    k
                ] * half_extent / (3.0 * denominator * denominator)
                opacity += weight
                moment += weight * s
            p = positions[k] * float(side)
            last = side - 1
            x, y, z = wp.min(int(p[0]), last), wp.min(int(p[1]), last), wp.min(int(p[2]), last)
            bits = wp.cast(weight, wp.int32)
            if bits > max_weights[x, y, z]:
                wp.atomic_max(max_weights, x, y, z, bits)
        num_rays = counters[wp.static(NUM_RAYS)]
        num_depths = int(float(num_rays) * depth_fraction)
        grad_color, error, depth_scale = wp.vec3(0.0, 0.0, 0.0), depth_term, float(0.0)
        if target_distance > 0.0:
            depth_scale = scalars[wp.static(LOSS_SCALE)] * depth_weight / float(num_depths)
        else:
            exposure = wp.vec3(1.0, 1.0, 1.0)
            if exposures.shape[0] > 0:
                exposure = exposures[frame[r]]
            predicted = wp.cw_mul(exposure, output + transmittance * background[r])
            difference = predicted - target[r]
            error = wp.dot(difference, difference) / 3.0
            loss[r] = error
            grad_predicted = difference * (2.0 / 3.0 / float(num_rays - num_depths))
            grad_color = wp.cw_mul(exposure, grad_predicted) * scalars[wp.static(LOSS_SCALE)]
            if exposures.shape[0] > 0 and wp.isfinite(error):
                for c in range(3):
                    grad_exposure = wp.clamp(
                        grad_predicted[c] * predicted[c], -MAX_EXPOSURE_GRADIENT, MAX_EXPOSURE_GRADIENT
                    )
                    units = wp.int64(
                        wp.rint(wp.float64(grad_exposure) * wp.static(wp.float64(EXPOSURE_UNITS)))
                    )
                    wp.atomic_add(exposure_sums, frame[r], c, units)
        if not (wp.isfinite(error) and wp.isfinite(distortion_loss)):
            wp.atomic_max(counters, wp.static(NOT_FINITE), 1)
            return
        grad_background[r] = grad_color * transmittance
        rest = wp.dot(grad_color, background[r])
        distortion_scale = scalars[wp.static(LOSS_SCALE)] / float(num_rays) * distortion
        opacity_after, moment_after = float(0.0), float(0.0)
        for i in range(count):
            k = begin + count - 1 - i
            depth = wp.exp(wp.min(geometry[0, k], MAX_LOG_DENSITY)) / density_unit * lengths[k]
            remaining, front = wp.exp(-depth), transmittances[k]
            weight = front * (1.0 - remaining)
            color = wp.vec3(sigmoid(colors[0, k]), sigmoid(colors[1, k]), sigmoid(colors[2, k]))
            grad_weight = wp.dot(grad_color, color)
            if target_distance > 0.0:
                grad_weight -= depth_scale * nearness(distances[k], target_distance)
            if distortion > 0.0:
                denominator = distances[k] + half_extent
                s = distances[k] / denominator
                before, moment_before = opacity - opacity_after - weight, moment - moment_after - weight * s
                grad_weight += distortion_scale * 2.0 * (
                    s * (before - opacity_after) - moment_before + moment_after
                ) + distortion_scale * 2.0 / 3.0 * weight * lengths[k] * half_extent / (
                    denominator * denominator
                )
                opacity_after += weight
                moment_after += weight * s
            grad_log_density[k] = active(front * (grad_weight - rest) * remaining * depth)
            rest = grad_weight * (1.0 - remaining) + remaining * rest
            for c in range(3):
                grad_colors[c, k] = active(weight * grad_color[c] * color[c] * (1.0 - color[c]))

    @wp.func
    def add_cell(
        cell: wp.vec3i,
        right: int,
        feature: int,
        level: wp.vec4i,
        total: wp.vec4,
        sums: wp.array(dtype=wp.int64),
    ):
        for side in range(4):
            entry = 2 * entry_of(cell, right + 2 * side, level)
            wp.atomic_add(sums, entry + feature, wp.int64(total[side]))

    @precision.kernel
    def scatter(
        counters: wp.array(dtype=wp.int32),
        positions: wp.array(dtype=wp.vec3),
        levels: wp.array(dtype=wp.vec4i),
        gradients: wp.array2d(dtype=active),
        units: float,
        sums: wp.array(dtype=wp.int64),
    ):
        """Add the gradients of features to the entries in fixed point; `units` per 1.

        Four threads beside each other take the same few consecutive samples, each one feature and one side in x: where
        x is even, the entries of both sides are neighbors, and the four additions are one access to memory. Samples of
        the same cell are summed before they are added.
        """
        n, thread = wp.tid()
        feature, right = thread & 1, (thread >> 1) & 1
        begin = (thread >> 2) * wp.static(SAMPLES_PER_THREAD)
        end = wp.min(begin + wp.static(SAMPLES_PER_THREAD), counters[wp.static(NUM_SAMPLES)])
        level, total, current, has_total = levels[n], wp.vec4(), wp.vec3i(-1, -1, -1), bool(False)
        for i in range(begin, end):
            gradient, p = float(gradients[2 * n + feature, i]), positions[i]
            if not wp.isfinite(gradient):
                wp.atomic_max(counters, wp.static(NOT_FINITE), 1)
            elif inside(p):
                scaled = p * float(level[0])
                cell = cell_of(scaled, level[0])
                fraction = scaled - wp.vec3(float(cell[0]), float(cell[1]), float(cell[2]))
                if cell[0] != current[0] or cell[1] != current[1] or cell[2] != current[2]:
                    if has_total:
                        add_cell(current, right, feature, level, total, sums)
                    current, total, has_total = cell, wp.vec4(), False
                if gradient != 0.0:
                    has_total = True
                    for side in range(4):
                        total[side] += corner_weight(fraction, right + 2 * side) * units * gradient
        if has_total:
            add_cell(current, right, feature, level, total, sums)

    return SimpleNamespace(
        encode=encode,
        select_visible=select_visible,
        color_inputs=color_inputs,
        composite=composite,
        scatter=scatter,
    )
