"""Adam's updates on the device, and the bookkeeping after a step: loss scale and number of rays of the next one.

A step that met a value that is not finite changes nothing, and halves the loss scale.
"""

from types import SimpleNamespace

import torch
import warp as wp

from unrender.kernels._hash_training import (
    BATCHES,
    FINITE_IN_A_ROW,
    FIRST_CORRECTION,
    LEARNING_RATE,
    LOSS,
    LOSS_SCALE,
    MEAN_LOSS,
    NOT_FINITE,
    NUM_RAYS,
    REQUESTED_CANDIDATES,
    REQUESTED_SAMPLES,
    SECOND_CORRECTION,
    SKIPPED,
    SKIPPED_IN_A_ROW,
    UPDATES,
)
from unrender.kernels._warp import Precision, per_precision

MAX_LOSS_SCALE = wp.constant(16777216.0)
STEPS_TO_DOUBLE = wp.constant(1000)
"""Consecutive finite steps after which the loss scale is doubled."""
MEMORY = wp.constant(0.98)
"""Weight of the past in the mean loss."""
TARGET_FILL = wp.constant(0.94)
"""Fraction of the capacity that the next step should use."""


def optimizer_kernels(half: torch.dtype) -> SimpleNamespace:
    """Return the kernels for activations in single or half precision."""
    return _optimizer_kernels(torch.float32, half.itemsize)


@per_precision("hash_training.optimizer")
def _optimizer_kernels(precision: Precision, active_bytes: int) -> SimpleNamespace:
    active = wp.float16 if active_bytes == 2 else wp.float32

    @precision.kernel
    def count_samples(
        counters: wp.array(dtype=wp.int32),
        offsets: wp.array(dtype=wp.int32),
        capacity: int,
        count: int,
        requested: int,
    ):
        """Count the samples of rays that fit into the capacity; `count` and `requested` are indices of counters."""
        num_rays = counters[wp.static(NUM_RAYS)]
        counters[requested] = offsets[num_rays]
        low = int(0)
        high = int(num_rays)
        while low < high:  # the last ray whose samples fit
            midpoint = (low + high + 1) // 2
            if offsets[midpoint] <= capacity:
                low = midpoint
            else:
                high = midpoint - 1
        counters[count] = offsets[low]

    @precision.kernel
    def check_finite(
        counters: wp.array(dtype=wp.int32),
        scalars: wp.array(dtype=wp.float32),
        gradients: wp.array(dtype=wp.float32),
        beta1: float,
        beta2: float,
    ):
        """Record whether a gradient is not finite; compute Adam's bias corrections."""
        i = wp.tid()
        if not wp.isfinite(gradients[i]):
            wp.atomic_max(counters, wp.static(NOT_FINITE), 1)
        if i == 0:
            updates = float(counters[wp.static(UPDATES)] + 1)
            scalars[wp.static(FIRST_CORRECTION)] = 1.0 - wp.pow(beta1, updates)
            scalars[wp.static(SECOND_CORRECTION)] = 1.0 - wp.pow(beta2, updates)

    @wp.func
    def update(
        i: int,
        gradient: float,
        relative_rate: float,
        scalars: wp.array(dtype=wp.float32),
        beta1: float,
        beta2: float,
        epsilon: float,
        values: wp.array(dtype=wp.float32),
        mean: wp.array(dtype=wp.float32),
        square: wp.array(dtype=wp.float32),
    ):
        """Update one value like torch.optim.Adam."""
        first = beta1 * mean[i] + (1.0 - beta1) * gradient
        second = beta2 * square[i] + (1.0 - beta2) * gradient * gradient
        mean[i] = first
        square[i] = second
        root = wp.sqrt(second) / wp.sqrt(scalars[wp.static(SECOND_CORRECTION)]) + epsilon
        rate = relative_rate * scalars[wp.static(LEARNING_RATE)] / scalars[wp.static(FIRST_CORRECTION)]
        value = values[i] - rate * first / root
        values[i] = value
        return value

    @precision.kernel
    def update_table(
        counters: wp.array(dtype=wp.int32),
        scalars: wp.array(dtype=wp.float32),
        beta1: float,
        beta2: float,
        epsilon: float,
        decay: float,
        units: float,
        sparse: bool,
        sums: wp.array(dtype=wp.int64),
        values: wp.array(dtype=wp.float32),
        mean: wp.array(dtype=wp.float32),
        square: wp.array(dtype=wp.float32),
        copies: wp.array(dtype=active),
    ):
        """Update from gradients in fixed point, and set these to 0; `copies`, if any, are in half precision.

        With `sparse`, entries without a gradient, and their moments, stay as they are (Müller et al. 2022, section 4).
        """
        i = wp.tid()
        total = sums[i]
        if total != wp.int64(0):
            sums[i] = wp.int64(0)
        elif sparse:
            return
        if counters[wp.static(NOT_FINITE)] == 0:
            gradient = float(wp.float64(total) / wp.float64(units)) / scalars[wp.static(LOSS_SCALE)]
            gradient += decay * values[i]
            value = update(i, gradient, 1.0, scalars, beta1, beta2, epsilon, values, mean, square)
            if copies.shape[0] > 0:
                copies[i] = active(value)

    @precision.kernel
    def update_weights(
        counters: wp.array(dtype=wp.int32),
        scalars: wp.array(dtype=wp.float32),
        beta1: float,
        beta2: float,
        epsilon: float,
        decay: float,
        relative_rate: float,
        gradients: wp.array(dtype=wp.float32),
        values: wp.array(dtype=wp.float32),
        mean: wp.array(dtype=wp.float32),
        square: wp.array(dtype=wp.float32),
    ):
        """Update with L2 regularization, so that weights without effect do not drift."""
        i = wp.tid()
        if counters[wp.static(NOT_FINITE)] == 0:
            gradient = gradients[i] / scalars[wp.static(LOSS_SCALE)] + decay * values[i]
            update(i, gradient, relative_rate, scalars, beta1, beta2, epsilon, values, mean, square)

    @precision.kernel
    def finish_step(
        counters: wp.array(dtype=wp.int32),
        scalars: wp.array(dtype=wp.float32),
        total_loss: wp.array(dtype=wp.float32),
        candidates: int,
        samples: int,
        max_rays: int,
        depth_fraction: float,
    ):
        """Count the step, and choose the loss scale and the number of rays of the next one from the capacities."""
        num_rays = counters[wp.static(NUM_RAYS)]
        if counters[wp.static(NOT_FINITE)] == 0:
            loss = total_loss[0] / float(num_rays - int(float(num_rays) * depth_fraction))
            scalars[wp.static(LOSS)] = loss
            mean = scalars[wp.static(MEAN_LOSS)]
            scalars[wp.static(MEAN_LOSS)] = wp.where(
                counters[wp.static(UPDATES)] == 0, loss, MEMORY * mean + (1.0 - MEMORY) * loss
            )
            counters[wp.static(UPDATES)] = counters[wp.static(UPDATES)] + 1
            counters[wp.static(SKIPPED_IN_A_ROW)] = 0
            finite = counters[wp.static(FINITE_IN_A_ROW)] + 1
            if finite >= STEPS_TO_DOUBLE:
                scalars[wp.static(LOSS_SCALE)] = wp.min(2.0 * scalars[wp.static(LOSS_SCALE)], MAX_LOSS_SCALE)
                finite = 0
            counters[wp.static(FINITE_IN_A_ROW)] = finite
        else:
            scalars[wp.static(LOSS_SCALE)] = wp.max(0.5 * scalars[wp.static(LOSS_SCALE)], 1.0)
            counters[wp.static(SKIPPED)] = counters[wp.static(SKIPPED)] + 1
            counters[wp.static(SKIPPED_IN_A_ROW)] = counters[wp.static(SKIPPED_IN_A_ROW)] + 1
            counters[wp.static(FINITE_IN_A_ROW)] = 0
        counters[wp.static(BATCHES)] = counters[wp.static(BATCHES)] + 1
        counters[wp.static(NOT_FINITE)] = 0
        used = wp.max(
            float(counters[wp.static(REQUESTED_SAMPLES)]) / float(samples),
            float(counters[wp.static(REQUESTED_CANDIDATES)]) / float(candidates),
        )
        target = TARGET_FILL * float(num_rays) / wp.max(used, 1.0e-6)
        minimum = wp.max(float(num_rays) / 2.0, 64.0)
        maximum = wp.min(1.1 * float(num_rays) + 1.0, float(max_rays))
        counters[wp.static(NUM_RAYS)] = int(wp.min(wp.max(target, minimum), maximum))

    return SimpleNamespace(
        count_samples=count_samples,
        check_finite=check_finite,
        update_table=update_table,
        update_weights=update_weights,
        finish_step=finish_step,
    )
