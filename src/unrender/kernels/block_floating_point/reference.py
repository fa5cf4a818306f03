"""Sums of gradients in block floating point, in plain PyTorch.

Let the gradients gₛ of a parameter, one for each shard s, be cut into blocks of 16 values, and let e be the smallest
integer with |gₛᵢ| < 2ᵉ for all s and all i of a block. The sum of a block is Σₛ round(gₛᵢ · 2^(bits − e)), in integers,
whose order does not matter; its value is that times 2^(e − bits).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 16
"""Values that have one exponent."""
BIAS = 126
"""Of exponents in float32, where 1 ≤ mantissa < 2 and not ½ ≤ mantissa < 1."""


def exponents(gradients: Sequence[Tensor]) -> Tensor:
    """Return e of each block as float32 has it: 0 for 0, 255 for values that are not finite."""
    largest = torch.stack([_blocks(gradient).abs().amax(1) for gradient in gradients]).amax(0)
    return ((largest.view(torch.int32) >> 23) & 255).to(torch.uint8)


def forward(gradients: Sequence[Tensor], exponents: Tensor, blocks: Tensor, bits: int) -> Tensor:
    """Return the sums of the chosen blocks."""
    scale = torch.exp2(bits + BIAS - exponents[blocks].double())[:, None]
    total = torch.zeros(len(blocks), BLOCK, dtype=torch.int64, device=exponents.device)
    for gradient in gradients:
        total += (_blocks(gradient)[blocks].double() * scale).round().long()
    return total


def values(sums: Tensor, exponents: Tensor, blocks: Tensor, bits: int, count: int) -> Tensor:
    """Return their values; 0 in other blocks."""
    scale = torch.exp2(exponents[blocks].double() - (bits + BIAS))[:, None]
    found = torch.zeros(len(exponents), BLOCK, dtype=torch.float32, device=sums.device)
    found[blocks] = (sums.double() * scale).float()
    return found.flatten()[:count]


def _blocks(gradient: Tensor) -> Tensor:
    flat = gradient.flatten()
    return torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
