"""Levels of a multiresolution hash encoding: their resolutions and offsets in the shared table."""

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

from unrender.errors import InputError

LINE = 8
"""Alignment of the levels in entries, so that neighboring corners share cache lines."""
MAX_RESOLUTION = 2**20
MAX_LOG2_HASHMAP_SIZE = 28


@dataclass(frozen=True)
class HashLevels:
    """Grids over the unit cube, from coarse to fine, whose corners have entries in one table.

    A level of resolution N has N cells per side and (N + 1)³ corners. If these are at most 2^log2_hashmap_size, the
    grid is dense, with one entry per corner; otherwise the level has 2^log2_hashmap_size entries, which corners share
    by hashing.
    """

    resolutions: tuple[int, ...]
    """Cells per side of each level, 1 to 2^20."""
    log2_hashmap_size: int
    """Logarithm of the maximum number of entries per level, 3 to 28."""

    def __post_init__(self) -> None:
        if not self.resolutions or not all(1 <= side <= MAX_RESOLUTION for side in self.resolutions):
            raise InputError(
                f"HashLevels: `resolutions` should be one or more numbers from 1 to {MAX_RESOLUTION}, "
                f"got {self.resolutions}"
            )
        if not 3 <= self.log2_hashmap_size <= MAX_LOG2_HASHMAP_SIZE:
            raise InputError(
                f"HashLevels: `log2_hashmap_size` should be 3 to {MAX_LOG2_HASHMAP_SIZE}, got {self.log2_hashmap_size}"
            )

    @classmethod
    def geometric(cls, coarsest: int, finest: int, num_levels: int, log2_hashmap_size: int) -> Self:
        """Create levels whose resolutions grow geometrically from `coarsest` to `finest`, rounded down.

        Source: Müller et al., Instant Neural Graphics Primitives, 2022, eq. 2 and 3.
        """
        if not 1 <= coarsest <= finest or num_levels < 1:
            raise InputError(
                "HashLevels.geometric: expected 1 ≤ `coarsest` ≤ `finest` and `num_levels` ≥ 1, "
                f"got {coarsest}, {finest} and {num_levels}"
            )
        steps = [level / max(num_levels - 1, 1) for level in range(num_levels)]
        sides = (coarsest * (finest / coarsest) ** step for step in steps)
        return cls(tuple(math.floor(round(side, 6)) for side in sides), log2_hashmap_size)

    @property
    def hashed(self) -> tuple[bool, ...]:
        """Whether each level is hashed rather than dense."""
        return tuple((side + 1) ** 3 > 2**self.log2_hashmap_size for side in self.resolutions)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Offset of each level in the table, followed by the size of the table."""
        corners = (min((side + 1) ** 3, 2**self.log2_hashmap_size) for side in self.resolutions)
        return tuple(accumulate((-(-count // LINE) * LINE for count in corners), initial=0))

    @property
    def num_entries(self) -> int:
        """Number of rows of the table."""
        return self.offsets[-1]
