"""Sums of gradients in block floating point: integers with one exponent for each block of values.

They add up to the same bits in any order, so that a training does not depend on how many workers share it.
"""

from collections.abc import Sequence
from types import ModuleType

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from unrender._checked import checked
from unrender.kernels._dispatch import implementation
from unrender.kernels.block_floating_point import reference
from unrender.kernels.block_floating_point.reference import BLOCK as BLOCK

NOT_FINITE = 255
"""Exponent of a block with a value that is not finite."""


@checked
def block_exponents(gradients: Sequence[Float32[Tensor, "*shape"]]) -> UInt8[Tensor, " blocks"]:
    """Return the exponent of each block of 16 values: the same for all gradients of a parameter, at least one.

    It is 0 where all of them are 0 or denormal, and 255 where one is not finite.
    """
    result: Tensor = _implementation(gradients[0].device).exponents(gradients)
    return result


@checked
def block_sums(
    gradients: Sequence[Float32[Tensor, "*shape"]],
    exponents: UInt8[Tensor, " blocks"],
    chosen: Int64[Tensor, " chosen"],
    bits: int,
) -> Int64[Tensor, "chosen 16"]:
    """Return the sums of gradients in chosen blocks, as integers; 2^bits times as many have to fit into 64 bits.

    exponents: at least those of the gradients, and finite. Differentiable in: nothing.
    """
    result: Tensor = _implementation(exponents.device).forward(gradients, exponents, chosen, bits)
    return result


@checked
def block_values(
    sums: Int64[Tensor, "chosen 16"],
    exponents: UInt8[Tensor, " blocks"],
    chosen: Int64[Tensor, " chosen"],
    bits: int,
    count: int,
) -> Float32[Tensor, " count"]:
    """Return the `count` values that sums stand for; 0 outside of the chosen blocks."""
    result: Tensor = _implementation(sums.device).values(sums, exponents, chosen, bits, count)
    return result


def _implementation(device: torch.device) -> ModuleType:
    return implementation("block_floating_point", device) or reference
