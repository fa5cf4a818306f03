"""Features of points from grids whose corners share a table, by the definition."""

from itertools import product

import torch
from torch import Tensor

from unrender.kernels.hash_grid.levels import HashLevels

PRIMES = (1, 2_654_435_761, 805_459_861)
"""Of the hash, for x, y and z (eq. 4)."""


def forward(points: Tensor, table: Tensor, levels: HashLevels) -> Tensor:
    """Mix the eight corners around each point, level by level: Σ Π_axis (1 − |N p_axis − corner_axis|) · entry.

    A point between two cells belongs to the second, and at the border to the last: its slopes are that cell's.
    The entry of corner (x, y, z) of a level with N cells a side is

    x + (N + 1) y + (N + 1)² z                                     where every corner has its own,
    (x ⊕ 2,654,435,761 y ⊕ 805,459,861 z) mod 2^largest_log2       where they are hashed,

    counted from the level's offset. Points beyond the unit cube, or not finite, have features 0.
    """
    inside = ((points >= 0) & (points <= 1)).all(-1, keepdim=True)
    safe = torch.where(inside, points, 0)
    features = []
    for side, hashed, offset in zip(levels.resolutions, levels.hashed, levels.offsets, strict=False):
        place = safe * side
        base = place.detach().floor().clamp(max=side - 1)
        mixed = table.new_zeros(len(points), table.shape[1])
        for step in product((0, 1), repeat=3):
            ahead = points.new_tensor(step)
            share = (1 - ahead + (2 * ahead - 1) * (place - base)).prod(-1, keepdim=True)
            x, y, z = (base + ahead).long().unbind(-1)
            if hashed:
                entry = (x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]) % 2**levels.largest_log2
            else:
                entry = x + (side + 1) * (y + (side + 1) * z)
            mixed = mixed + torch.where(inside, share * table[offset + entry], 0)
        features.append(mixed)
    return torch.cat(features, 1)
