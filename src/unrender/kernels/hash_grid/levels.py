"""The grids of a hash encoding: how fine they are, and where each lies in the common table."""

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

from unrender.errors import InputError

LINE = 8
"""Every level begins at a multiple of so many entries, so that neighbours share cache lines."""
FINEST = 2**20
LARGEST = 28


@dataclass(frozen=True)
class HashLevels:
    """Grids over the unit cube, from coarse to fine, whose corners have entries in one table.

    A level of resolution N has N cells along each side and (N + 1)³ corners. If these are at most 2^largest_log2 each
    has an entry of its own; if not, the level has 2^largest_log2 entries, and corners share them by hashing.
    """

    resolutions: tuple[int, ...]
    """Cells along each side of each level, 1 to 2^20."""
    largest_log2: int
    """A level has at most 2^largest_log2 entries, 2^3 to 2^28."""

    def __post_init__(self) -> None:
        if not self.resolutions or not all(1 <= side <= FINEST for side in self.resolutions):
            raise InputError(
                f"HashLevels: `resolutions` should be one or more from 1 to {FINEST}, got {self.resolutions}"
            )
        if not 3 <= self.largest_log2 <= LARGEST:
            raise InputError(f"HashLevels: `largest_log2` should be 3 to {LARGEST}, got {self.largest_log2}")

    @classmethod
    def growing(cls, coarsest: int, finest: int, num_levels: int, largest_log2: int) -> Self:
        """Make levels whose resolutions grow by a constant factor, rounded down.

        Source: Müller et al., Instant Neural Graphics Primitives, 2022, eq. 2 and 3.
        """
        if not 1 <= coarsest <= finest or num_levels < 1:
            raise InputError(
                "HashLevels.growing: 1 ≤ coarsest ≤ finest and num_levels ≥ 1 are needed, "
                f"got {coarsest}, {finest} and {num_levels}"
            )
        steps = [level / max(num_levels - 1, 1) for level in range(num_levels)]
        sides = (coarsest * (finest / coarsest) ** step for step in steps)
        return cls(tuple(math.floor(round(side, 6)) for side in sides), largest_log2)

    @property
    def hashed(self) -> tuple[bool, ...]:
        """Whether corners of each level share entries."""
        return tuple((side + 1) ** 3 > 2**self.largest_log2 for side in self.resolutions)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each level begins in the table, and where the last one ends."""
        corners = (min((side + 1) ** 3, 2**self.largest_log2) for side in self.resolutions)
        return tuple(accumulate((-(-count // LINE) * LINE for count in corners), initial=0))

    @property
    def num_entries(self) -> int:
        """Rows of the table, all levels together."""
        return self.offsets[-1]
