"""Columns summed by an index, in fixed point."""

import math
from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._fixed_point import from_sums
from unrender.kernels._warp import (
    Precision,
    count_log2,
    in_units,
    launch,
    per_precision,
    record_term,
    unit_exponent,
)
from unrender.kernels.scatter_sum import reference


def forward(columns: Tensor, index: Tensor, size: int) -> Tensor:
    *batch, axes, count = columns.shape
    rows = math.prod(batch) * axes
    sums = torch.zeros(rows * size + 1, dtype=torch.int64, device=columns.device)
    sums, max_term = sums[:-1], sums[-1:]
    terms, indices, bits = columns.detach().contiguous(), index.long().contiguous(), count_log2(count)
    rows_per_index = axes if index.dim() > 1 else rows
    kernels = scatter_kernels(columns.dtype)
    launch(kernels.record, terms.numel(), terms, max_term)
    launch(kernels.add, (rows, count), terms, indices, rows_per_index, size, bits, max_term, sums)
    return from_sums(sums, max_term, bits, columns.dtype).view(*batch, axes, size)


def backward(index: Tensor, grad_output: Tensor) -> Tensor:
    return grad_output.gather(-1, reference.expand_index(grad_output, index))


@per_precision("scatter_sum")
def scatter_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar = types.scalar

    @types.kernel
    def record(terms: wp.array(dtype=scalar), max_term: wp.array(dtype=wp.int64)):
        record_term(wp.float64(terms[wp.tid()]), max_term)

    @types.kernel
    def add(
        terms: wp.array2d(dtype=scalar),
        index: wp.array2d(dtype=wp.int64),
        rows_per_index: int,
        size: int,
        bits: int,
        max_term: wp.array(dtype=wp.int64),
        sums: wp.array(dtype=wp.int64),
    ):
        row, i = wp.tid()
        term = in_units(wp.float64(terms[row, i]), unit_exponent(max_term[0], bits))
        wp.atomic_add(sums, row * size + int(index[row // rows_per_index, i]), term)

    return SimpleNamespace(record=record, add=add)
