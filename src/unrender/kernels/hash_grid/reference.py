"""Reference implementation of the multiresolution hash encoding."""

from itertools import product

import torch
from torch import Tensor

from unrender.kernels.hash_grid.levels import HashLevels

PRIMES = (1, 2_654_435_761, 805_459_861)
"""Factors of x, y and z in the hash function (eq. 4)."""


def forward(points: Tensor, table: Tensor, levels: HashLevels) -> Tensor:
    """Interpolate the eight corners around each point, level by level: Σ Π_axis (1 − |N p_axis − corner_axis|) · entry.

    A point on a cell boundary belongs to the upper cell, at the border of the cube to the last one; its gradient is
    that of this cell. The entry of corner (x, y, z) of a level with N cells per side is

    x + (N + 1) y + (N + 1)² z                                     if the level is dense,
    (x ⊕ 2,654,435,761 y ⊕ 805,459,861 z) mod 2^log2_hashmap_size         if it is hashed,

    relative to the level's offset. Points outside the unit cube, or not finite, have features 0.
    """
    inside = ((points >= 0) & (points <= 1)).all(-1, keepdim=True)
    safe = torch.where(inside, points, 0)
    features = []
    for side, hashed, offset in zip(levels.resolutions, levels.hashed, levels.offsets, strict=False):
        scaled = safe * side
        base = scaled.detach().floor().clamp(max=side - 1)
        mixed = table.new_zeros(len(points), table.shape[1])
        for step in product((0, 1), repeat=3):
            corner = points.new_tensor(step)
            weight = (1 - corner + (2 * corner - 1) * (scaled - base)).prod(-1, keepdim=True)
            x, y, z = (base + corner).long().unbind(-1)
            if hashed:
                entry = (x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]) % 2**levels.log2_hashmap_size
            else:
                entry = x + (side + 1) * (y + (side + 1) * z)
            mixed = mixed + torch.where(inside, weight * table[offset + entry], 0)
        features.append(mixed)
    return torch.cat(features, 1)
