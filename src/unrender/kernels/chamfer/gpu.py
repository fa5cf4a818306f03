"""Both directions of a Chamfer distance at once: one thread per point of x, then of y.

Without known neighbors, each point is compared with all points of the other cloud, in slices by several threads.
Gradients of points are accumulated in fixed point, so that they do not depend on the order of threads.
"""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import (
    Precision,
    count_log2,
    from_units,
    in_units,
    launch,
    per_precision,
    record_term,
    unit_exponent,
)
from unrender.kernels.nearest.gpu import widen

FARTHEST = wp.constant(wp.int64(0x7FFFFFFFFFFFFFFF))
THREADS, SMALLEST_SLICE = 1 << 18, 128


def forward(
    x: Tensor, y: Tensor, x_ids: Tensor | None, y_ids: Tensor | None, norm: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    points, (batch, num_x, num_y) = (widen(x), widen(y)), _sizes(x, y)
    kernels, count, size = (
        chamfer_kernels(x.dtype, points[0].shape[-1]),
        num_x + num_y,
        (batch, num_x + num_y),
    )
    found = None
    zeros = torch.zeros(1 + (batch * count if x_ids is None else 0), dtype=torch.int64, device=x.device)
    max_term, terms = zeros[-1:], x.new_empty(size)
    if x_ids is None or y_ids is None:
        slices = max(1, min(THREADS // max(batch * count, 1), max(num_x, num_y) // SMALLEST_SLICE))
        slices = slices if x.dtype == torch.float32 else 1
        found = zeros[:-1].view(size)
        launch(kernels.compare, (slices, *size), *points, norm, slices, found)
        x_ids, y_ids = (torch.empty(batch, n, 1, dtype=torch.int64, device=x.device) for n in (num_x, num_y))
    else:
        x_ids, y_ids = x_ids.contiguous(), y_ids.contiguous()
    launch(kernels.measure, size, *points, norm, found, x_ids, y_ids, terms, max_term)
    return terms.sum(), x_ids, y_ids, max_term


def backward(
    x: Tensor, y: Tensor, x_ids: Tensor, y_ids: Tensor, max_term: Tensor, norm: int, grad_output: Tensor
) -> tuple[Tensor | None, ...]:
    points, (batch, num_x, num_y) = (widen(x), widen(y)), _sizes(x, y)
    kernels, bits = chamfer_kernels(x.dtype, points[0].shape[-1]), count_log2(max(num_x, num_y))
    size, gradients = (batch, num_x + num_y), [torch.empty_like(p) for p in points]
    sums = torch.zeros(batch, num_x + num_y, points[0].shape[-1], dtype=torch.int64, device=x.device)
    arguments = (*points, norm, x_ids, y_ids, max_term, bits, sums)
    launch(kernels.scatter, size, *arguments)
    launch(kernels.finish, size, *arguments, grad_output.contiguous(), *gradients)
    if points[0].shape == x.shape:
        return gradients[0], gradients[1]
    return gradients[0][..., : x.shape[-1]], gradients[1][..., : y.shape[-1]]


def _sizes(x: Tensor, y: Tensor) -> tuple[int, int, int]:
    return x.shape[:-2].numel(), x.shape[-2], y.shape[-2]


@per_precision("chamfer")
def chamfer_kernels(types: Precision, dim: int) -> SimpleNamespace:
    """Define the kernels for points of `dim` axes."""
    scalar, vector = types.scalar, wp.types.vector(dim, types.scalar)
    is_single = types.scalar == wp.float32

    @wp.func
    def measure_offset(offset: vector, norm: int):
        distance = scalar(0.0)
        for axis in range(dim):
            if norm == 1:
                distance += wp.abs(offset[axis])
            else:
                distance += offset[axis] * offset[axis]
        return distance

    @wp.func
    def closeness_in_slice(
        query: vector, points: wp.array2d(dtype=vector), b: int, slice_index: int, slices: int, norm: int
    ):
        """Return a positive integer that is larger for a nearer nearest point of a slice, and for a smaller id.

        In double precision there is one slice, as a distance and an id do not fit into the integer.
        """
        size = (points.shape[1] + slices - 1) // slices
        first = slice_index * size
        if first >= points.shape[1]:
            return wp.int64(0)
        nearest = first
        best = measure_offset(query - points[b, first], norm)
        for j in range(first + 1, wp.min(first + size, points.shape[1])):
            distance = measure_offset(query - points[b, j], norm)
            if distance < best:
                best = distance
                nearest = j
        bits = int(0)
        if wp.static(is_single):
            bits = int(0x7FC00000)  # of NaN
            if not wp.isnan(best):
                bits = wp.cast(wp.float32(best), wp.int32)
        return FARTHEST - ((wp.int64(bits) << wp.int64(32)) | wp.int64(nearest))

    @types.kernel
    def compare(
        x: wp.array2d(dtype=vector),
        y: wp.array2d(dtype=vector),
        norm: int,
        slices: int,
        found: wp.array2d(dtype=wp.int64),
    ):
        slice_index, b, i = wp.tid()
        closeness = wp.int64(0)
        if i < x.shape[1]:
            closeness = closeness_in_slice(x[b, i], y, b, slice_index, slices, norm)
        else:
            closeness = closeness_in_slice(y[b, i - x.shape[1]], x, b, slice_index, slices, norm)
        wp.atomic_max(found, b, i, closeness)

    @wp.func
    def offset_of(
        x: wp.array2d(dtype=vector),
        y: wp.array2d(dtype=vector),
        x_ids: wp.array3d(dtype=wp.int64),
        y_ids: wp.array3d(dtype=wp.int64),
        b: int,
        i: int,
    ):
        if i < x.shape[1]:
            return x[b, i] - y[b, int(x_ids[b, i, 0])]
        j = i - x.shape[1]
        return y[b, j] - x[b, int(y_ids[b, j, 0])]

    @types.kernel
    def measure(
        x: wp.array2d(dtype=vector),
        y: wp.array2d(dtype=vector),
        norm: int,
        found: wp.array2d(dtype=wp.int64),
        x_ids: wp.array3d(dtype=wp.int64),
        y_ids: wp.array3d(dtype=wp.int64),
        terms: wp.array2d(dtype=scalar),
        max_term: wp.array(dtype=wp.int64),
    ):
        """Decode the ids of the nearest points, and compute each point's term of the means."""
        b, i = wp.tid()
        if found.shape[0] > 0:
            nearest = (FARTHEST - found[b, i]) & wp.int64(0xFFFFFFFF)
            if i < x.shape[1]:
                x_ids[b, i, 0] = nearest
            else:
                y_ids[b, i - x.shape[1], 0] = nearest
        distance = measure_offset(offset_of(x, y, x_ids, y_ids, b, i), norm)
        record_term(wp.float64(distance), max_term)
        count = x.shape[1]
        if i >= x.shape[1]:
            count = y.shape[1]
        terms[b, i] = distance / scalar(count * x.shape[0])

    @wp.func
    def direction_of(offset: vector, norm: int):
        """Return the gradient of a distance, halved for squared ones."""
        if norm == 2:
            return offset
        signs = vector(scalar(0.0))
        for axis in range(dim):
            if offset[axis] > scalar(0.0):
                signs[axis] = scalar(1.0)
            elif offset[axis] < scalar(0.0):
                signs[axis] = scalar(-1.0)
        return signs

    @wp.func
    def max_direction(max_term: wp.int64, norm: int):
        """Return the largest component of a direction, as `record_term` does, from the largest distance."""
        if norm == 1:
            return wp.max(wp.cast(wp.float64(1.0), wp.int64), max_term)
        return wp.cast(wp.sqrt(wp.cast(max_term, wp.float64)), wp.int64)

    @types.kernel
    def scatter(
        x: wp.array2d(dtype=vector),
        y: wp.array2d(dtype=vector),
        norm: int,
        x_ids: wp.array3d(dtype=wp.int64),
        y_ids: wp.array3d(dtype=wp.int64),
        max_term: wp.array(dtype=wp.int64),
        bits: int,
        sums: wp.array3d(dtype=wp.int64),
    ):
        b, i = wp.tid()
        direction = direction_of(offset_of(x, y, x_ids, y_ids, b, i), norm)
        partner = x.shape[1]
        if i < x.shape[1]:
            partner += int(x_ids[b, i, 0])
        else:
            partner = int(y_ids[b, i - x.shape[1], 0])
        exponent = unit_exponent(max_direction(max_term[0], norm), bits)
        for axis in range(dim):
            wp.atomic_sub(sums, b, partner, axis, in_units(wp.float64(direction[axis]), exponent))

    @types.kernel
    def finish(
        x: wp.array2d(dtype=vector),
        y: wp.array2d(dtype=vector),
        norm: int,
        x_ids: wp.array3d(dtype=wp.int64),
        y_ids: wp.array3d(dtype=wp.int64),
        max_term: wp.array(dtype=wp.int64),
        bits: int,
        sums: wp.array3d(dtype=wp.int64),
        grad_output: wp.array(dtype=scalar),
        x_gradient: wp.array2d(dtype=vector),
        y_gradient: wp.array2d(dtype=vector),
    ):
        b, i = wp.tid()
        grad = grad_output[0] * scalar(norm) / scalar(x.shape[0])
        own, others = grad / scalar(x.shape[1]), grad / scalar(y.shape[1])
        if i >= x.shape[1]:
            own, others = others, own
        size = max_direction(max_term[0], norm)
        exponent = unit_exponent(size, bits)
        gradient = own * direction_of(offset_of(x, y, x_ids, y_ids, b, i), norm)
        for axis in range(dim):
            gradient[axis] += others * scalar(from_units(sums[b, i, axis], size, exponent))
        if i < x.shape[1]:
            x_gradient[b, i] = gradient
        else:
            y_gradient[b, i - x.shape[1]] = gradient

    return SimpleNamespace(compare=compare, measure=measure, scatter=scatter, finish=finish)
