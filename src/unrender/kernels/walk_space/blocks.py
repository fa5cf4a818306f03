"""Blocks of cells, past which rays leap if all in them are empty."""

from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import max_pool3d

BLOCK = 8
"""Cells along each side."""


def blocks_of(occupied: Bool[Tensor, "x y z"]) -> Bool[Tensor, "x_blocks y_blocks z_blocks"]:
    """Say in which blocks there is an occupied cell; those at the end may have fewer cells."""
    pooled: Tensor = max_pool3d(occupied[None].float(), BLOCK, ceil_mode=True)[0]
    return pooled > 0
