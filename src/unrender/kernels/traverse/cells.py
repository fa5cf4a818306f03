"""Cells of an occupancy grid with the box that they fill, and blocks of cells, which rays skip if empty."""

from typing import Self

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool3d

from unrender._struct import TensorStruct
from unrender.errors import ShapeError

BLOCK = 8
"""Cells along each side of a block."""


class CellGrid(TensorStruct):
    """An occupancy grid and the box that it fills; see `from_mask`."""

    cells: Bool[Tensor, "x y z"]
    blocks: Bool[Tensor, "x_blocks y_blocks z_blocks"]
    """Whether any cell of a block is occupied; blocks at the end may have fewer cells."""
    center: Float[Tensor, "3"]
    half_extent: Float[Tensor, "3"]
    contracted: bool
    """If so, the cells divide the cube [−2, 2]³ of contracted coordinates, in which the box is [−1, 1]³; if not, they
    divide the box itself. See `contraction`."""

    @classmethod
    def from_mask(
        cls,
        occupied: Bool[Tensor, "x y z"],
        center: Float[Tensor, "3"],
        half_extent: Float[Tensor, "3"],
        *,
        contracted: bool = False,
    ) -> Self:
        """Return the grid of the occupied cells in the box center ± half_extent."""
        if 0 in occupied.shape:
            raise ShapeError(
                f"CellGrid: a grid has at least one cell along each axis, got {list(occupied.shape)}"
            )
        return cls(occupied.contiguous(), blocks_of(occupied), center, half_extent, contracted)


def blocks_of(occupied: Bool[Tensor, "x y z"]) -> Bool[Tensor, "x_blocks y_blocks z_blocks"]:
    """Return the blocks that contain an occupied cell."""
    pooled: Tensor = max_pool3d(occupied[None].float(), BLOCK, ceil_mode=True)[0]
    return pooled > 0
