"""Adam's updates on the device, what follows a step, and the next step's number of rays.

A step that met a number that is not finite changes nothing but the scale of gradients, which is halved.
"""

from types import SimpleNamespace

import torch
import warp as wp

from unrender.kernels._hash_training import (
    BAD,
    BAD_IN_A_ROW,
    DRAWS,
    FIRST_CORRECTION,
    GOOD_IN_A_ROW,
    LOSS,
    LOSS_SCALE,
    MEAN_LOSS,
    NUM_RAYS,
    NUM_SAMPLES,
    RATE,
    SECOND_CORRECTION,
    SKIPPED,
    UPDATES,
    WANTED,
)
from unrender.kernels._warp import Precision, per_precision

LARGEST_SCALE = wp.constant(16777216.0)
STEPS_TO_DOUBLE = wp.constant(1000)
"""Good steps in a row after which the scale is doubled."""
MEMORY = wp.constant(0.98)
"""Of the mean loss."""
FILLED = wp.constant(0.94)
"""Share of the room for samples that the next step should take."""


def update_kernels() -> SimpleNamespace:
    """Return the kernels."""
    return _update_kernels(torch.float32)


@per_precision("hash_training.updates")
def _update_kernels(precision: Precision) -> SimpleNamespace:

    @precision.kernel
    def begin(counts: wp.array(dtype=wp.int32), offsets: wp.array(dtype=wp.int32), room: int):
        """Note how many samples there are: those of the rays that find room."""
        total = offsets[counts[wp.static(NUM_RAYS)]]
        counts[wp.static(WANTED)] = total
        low = int(0)
        high = int(counts[wp.static(NUM_RAYS)])
        while low < high:  # the last ray whose samples end within the room
            middle = (low + high + 1) // 2
            if offsets[middle] <= room:
                low = middle
            else:
                high = middle - 1
        counts[wp.static(NUM_SAMPLES)] = offsets[low]

    @precision.kernel
    def look_over(
        counts: wp.array(dtype=wp.int32),
        numbers: wp.array(dtype=wp.float32),
        gradients: wp.array(dtype=wp.float32),
        beta: float,
        other_beta: float,
    ):
        """Note whether a gradient is not finite; prepare what Adam's updates have in common."""
        i = wp.tid()
        if not wp.isfinite(gradients[i]):
            wp.atomic_max(counts, wp.static(BAD), 1)
        if i == 0:
            updates = float(counts[wp.static(UPDATES)] + 1)
            numbers[wp.static(FIRST_CORRECTION)] = 1.0 - wp.pow(beta, updates)
            numbers[wp.static(SECOND_CORRECTION)] = 1.0 - wp.pow(other_beta, updates)

    @wp.func
    def descend(
        i: int,
        gradient: float,
        numbers: wp.array(dtype=wp.float32),
        beta: float,
        other_beta: float,
        epsilon: float,
        values: wp.array(dtype=wp.float32),
        mean: wp.array(dtype=wp.float32),
        square: wp.array(dtype=wp.float32),
    ):
        """Do as torch.optim.Adam does."""
        first = beta * mean[i] + (1.0 - beta) * gradient
        second = other_beta * square[i] + (1.0 - other_beta) * gradient * gradient
        mean[i] = first
        square[i] = second
        root = wp.sqrt(second) / wp.sqrt(numbers[wp.static(SECOND_CORRECTION)]) + epsilon
        value = values[i] - numbers[wp.static(RATE)] / numbers[wp.static(FIRST_CORRECTION)] * first / root
        values[i] = value
        return value

    @precision.kernel
    def update_table(
        counts: wp.array(dtype=wp.int32),
        numbers: wp.array(dtype=wp.float32),
        beta: float,
        other_beta: float,
        epsilon: float,
        units: float,
        sums: wp.array(dtype=wp.int64),
        values: wp.array(dtype=wp.float32),
        mean: wp.array(dtype=wp.float32),
        square: wp.array(dtype=wp.float32),
    ):
        """Descend by sums of so many units for each 1, and set them to 0."""
        i = wp.tid()
        total = sums[i]
        if total != wp.int64(0):
            sums[i] = wp.int64(0)
        if counts[wp.static(BAD)] == 0:
            gradient = float(wp.float64(total) / wp.float64(units)) / numbers[wp.static(LOSS_SCALE)]
            descend(i, gradient, numbers, beta, other_beta, epsilon, values, mean, square)

    @precision.kernel
    def update_layers(
        counts: wp.array(dtype=wp.int32),
        numbers: wp.array(dtype=wp.float32),
        beta: float,
        other_beta: float,
        epsilon: float,
        decay: float,
        gradients: wp.array(dtype=wp.float32),
        values: wp.array(dtype=wp.float32),
        mean: wp.array(dtype=wp.float32),
        square: wp.array(dtype=wp.float32),
    ):
        """Descend; gradients grow by `decay` times the values, which then do not drift where they have no effect."""
        i = wp.tid()
        if counts[wp.static(BAD)] == 0:
            gradient = gradients[i] / numbers[wp.static(LOSS_SCALE)] + decay * values[i]
            descend(i, gradient, numbers, beta, other_beta, epsilon, values, mean, square)

    @precision.kernel
    def finish(
        counts: wp.array(dtype=wp.int32), numbers: wp.array(dtype=wp.float32), total_loss: wp.array(dtype=wp.float32),
        room: int, most_rays: int,
    ):  # fmt: skip
        """Count the step, choose the next scale of gradients and number of rays."""
        num_rays = counts[wp.static(NUM_RAYS)]
        if counts[wp.static(BAD)] == 0:
            loss = total_loss[0] / float(num_rays)
            numbers[wp.static(LOSS)] = loss
            mean = numbers[wp.static(MEAN_LOSS)]
            numbers[wp.static(MEAN_LOSS)] = wp.where(
                counts[wp.static(UPDATES)] == 0, loss, MEMORY * mean + (1.0 - MEMORY) * loss
            )
            counts[wp.static(UPDATES)] = counts[wp.static(UPDATES)] + 1
            counts[wp.static(BAD_IN_A_ROW)] = 0
            good = counts[wp.static(GOOD_IN_A_ROW)] + 1
            if good >= STEPS_TO_DOUBLE:
                numbers[wp.static(LOSS_SCALE)] = wp.min(2.0 * numbers[wp.static(LOSS_SCALE)], LARGEST_SCALE)
                good = 0
            counts[wp.static(GOOD_IN_A_ROW)] = good
        else:
            numbers[wp.static(LOSS_SCALE)] = wp.max(0.5 * numbers[wp.static(LOSS_SCALE)], 1.0)
            counts[wp.static(SKIPPED)] = counts[wp.static(SKIPPED)] + 1
            counts[wp.static(BAD_IN_A_ROW)] = counts[wp.static(BAD_IN_A_ROW)] + 1
            counts[wp.static(GOOD_IN_A_ROW)] = 0
        counts[wp.static(DRAWS)] = counts[wp.static(DRAWS)] + 1
        counts[wp.static(BAD)] = 0
        wanted = float(num_rays) * FILLED * float(room) / float(wp.max(counts[wp.static(WANTED)], 1))
        least, most = (
            wp.max(float(num_rays) / 2.0, 64.0),
            wp.min(1.1 * float(num_rays) + 1.0, float(most_rays)),
        )
        counts[wp.static(NUM_RAYS)] = int(wp.min(wp.max(wanted, least), most))

    return SimpleNamespace(
        begin=begin,
        look_over=look_over,
        update_table=update_table,
        update_layers=update_layers,
        finish=finish,
    )
