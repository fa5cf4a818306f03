"""Block floating point: one thread per block, or per value of a chosen block."""

from collections.abc import Sequence
from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision, power_of_two
from unrender.kernels.block_floating_point.reference import BIAS, BLOCK

MAGNITUDE = 0x7FFFFFFF
"""All bits of a float32 but its sign."""


def exponents(gradients: Sequence[Tensor]) -> Tensor:
    found = torch.zeros(-(-gradients[0].numel() // BLOCK), dtype=torch.uint8, device=gradients[0].device)
    for gradient in gradients:
        launch(_kernels(torch.float32).raise_exponents, len(found), gradient.contiguous().flatten(), found)
    return found


def forward(gradients: Sequence[Tensor], exponents: Tensor, blocks: Tensor, bits: int) -> Tensor:
    total = torch.zeros(len(blocks), BLOCK, dtype=torch.int64, device=exponents.device)
    known = (exponents.contiguous(), blocks.contiguous())
    for gradient in gradients:
        flat = gradient.contiguous().flatten()
        launch(_kernels(torch.float32).add, tuple(total.shape), flat, *known, bits + BIAS, total)
    return total


def values(sums: Tensor, exponents: Tensor, blocks: Tensor, bits: int, count: int) -> Tensor:
    found = torch.zeros(count, device=sums.device)
    arguments = (sums.contiguous(), exponents.contiguous(), blocks.contiguous(), bits + BIAS, found)
    launch(_kernels(torch.float32).scatter, tuple(sums.shape), *arguments)
    return found


@per_precision("block_floating_point")
def _kernels(precision: Precision) -> SimpleNamespace:
    @precision.kernel
    def raise_exponents(gradient: wp.array(dtype=wp.float32), found: wp.array(dtype=wp.uint8)):
        block = wp.tid()
        largest, first = int(0), block * BLOCK
        for i in range(first, wp.min(first + BLOCK, gradient.shape[0])):
            largest = wp.max(largest, wp.cast(gradient[i], wp.int32) & MAGNITUDE)
        found[block] = wp.max(found[block], wp.uint8(largest >> 23))

    @precision.kernel
    def add(
        gradient: wp.array(dtype=wp.float32),
        exponents: wp.array(dtype=wp.uint8),
        blocks: wp.array(dtype=wp.int64),
        bits: int,
        total: wp.array2d(dtype=wp.int64),
    ):
        row, i = wp.tid()
        block = int(blocks[row])
        if block * BLOCK + i < gradient.shape[0]:
            scale = power_of_two(bits - int(exponents[block]))
            total[row, i] = total[row, i] + wp.int64(wp.rint(wp.float64(gradient[block * BLOCK + i]) * scale))

    @precision.kernel
    def scatter(
        sums: wp.array2d(dtype=wp.int64),
        exponents: wp.array(dtype=wp.uint8),
        blocks: wp.array(dtype=wp.int64),
        bits: int,
        found: wp.array(dtype=wp.float32),
    ):
        row, i = wp.tid()
        block = int(blocks[row])
        if block * BLOCK + i < found.shape[0]:
            scale = power_of_two(int(exponents[block]) - bits)
            found[block * BLOCK + i] = wp.float32(wp.float64(sums[row, i]) * scale)

    return SimpleNamespace(raise_exponents=raise_exponents, add=add, scatter=scatter)
