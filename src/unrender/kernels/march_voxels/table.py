"""The voxels of a sparse grid, with a map of empty space that rays skip."""

from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from unrender._checked import checked
from unrender._struct import TensorStruct
from unrender.errors import InputError

BRICK = 4
"""Voxels along the side of a brick."""
CORNERS = np.array([[q >> 2, q >> 1 & 1, q & 1] for q in range(8)])
"""Offsets of the corners of a voxel from its lowest one; z changes fastest."""


class VoxelTable(TensorStruct):
    """The voxels of a sparse grid, in bricks of 4 × 4 × 4, and the corners that they share.

    Values are stored at the corners and interpolated in between. Bricks, the voxels in them and the corners are
    numbered with z changing fastest, so that neighbors in space are close in memory.
    """

    bricks: Int[Tensor, "x y z"]
    """Index of each brick; of an empty one, minus the chessboard distance to the nearest brick that is not."""
    voxels: Int[Tensor, "bricks 64"]
    """Indices of the voxels of each brick, which are consecutive; −1 where there is no voxel."""
    corners: Int[Tensor, "voxels 8"]
    """Indices of the corners of each voxel; z changes fastest, then y."""
    voxel_positions: Int[Tensor, "voxels 3"]
    """Position of the lowest corner of each voxel, in voxels."""
    corner_positions: Int[Tensor, "corners 3"]

    @classmethod
    @checked
    def from_mask(cls, active: Bool[Tensor, "x y z"]) -> Self:
        """Return the table of the active voxels of a dense grid, whose sides are multiples of 4."""
        if any(side % BRICK for side in active.shape) or not bool(active.any()):
            raise InputError(
                f"VoxelTable: sides should be multiples of {BRICK}, with at least one active voxel; got "
                f"{list(active.shape)}"
            )
        mask = active.cpu().numpy()
        of_bricks = _in_bricks(mask)
        filled = np.asarray(of_bricks.any(-1))
        brick_positions = np.argwhere(filled)
        voxels = _numbered(of_bricks[filled])
        brick, within = np.nonzero(of_bricks[filled])
        positions = brick_positions[brick] * BRICK + np.stack([within >> 4, within >> 2 & 3, within & 3], 1)
        corner_numbers, corner_positions = _number_corners(mask)
        around = positions[:, None] + CORNERS
        corners = corner_numbers[around[..., 0], around[..., 1], around[..., 2]]
        arrays = (_bricks_or_distance(filled), voxels, corners, positions, corner_positions)
        return cls(*(torch.from_numpy(a.astype(np.int32)).to(active.device) for a in arrays))

    @property
    def num_voxels(self) -> int:
        """Number of voxels."""
        return len(self.corners)

    @property
    def num_corners(self) -> int:
        """Number of corners of all voxels."""
        return len(self.corner_positions)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the dense grid, in voxels."""
        x, y, z = (side * BRICK for side in self.bricks.shape)
        return x, y, z

    def corner_numbers(self) -> Int[Tensor, "x y z"]:
        """Return the index of the corner at each point of a grid with one brick more along each side, or −1."""
        device = self.corner_positions.device
        numbers = torch.full([side + BRICK for side in self.shape], -1, dtype=torch.int32, device=device)
        numbers[self.corner_positions.long().unbind(-1)] = torch.arange(
            self.num_corners, dtype=torch.int32, device=device
        )
        return numbers

    def neighbors(self) -> Int[Tensor, "corners 6"]:
        """Return the neighbors of each corner along −x, +x, −y, +y, −z, +z, or −1."""
        numbers = torch.nn.functional.pad(self.corner_numbers(), (1, 0) * 3, value=-1)
        positions = self.corner_positions.long() + 1
        steps = positions.new_tensor([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]])
        return torch.stack([numbers[(positions + step).unbind(-1)] for step in steps], 1)


def _in_bricks(values: NDArray[np.bool_]) -> NDArray[np.bool_]:
    x, y, z = (side // BRICK for side in values.shape)
    split = values.reshape(x, BRICK, y, BRICK, z, BRICK)
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(x, y, z, BRICK**3)


def _numbered(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    numbers = np.full(mask.shape, -1, np.int32)
    numbers[mask] = np.arange(np.count_nonzero(mask), dtype=np.int32)
    return numbers


def _bricks_or_distance(filled: NDArray[np.bool_]) -> NDArray[np.int32]:
    from scipy.ndimage import distance_transform_cdt

    numbers = _numbered(filled)
    return np.where(filled, numbers, -distance_transform_cdt(~filled, metric="chessboard"))


def _number_corners(active: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the indices of the corners in a dense grid, numbered brick by brick, and the position of each corner."""
    used = np.zeros([side + BRICK for side in active.shape], bool)
    for x, y, z in CORNERS:
        used[x : x + active.shape[0], y : y + active.shape[1], z : z + active.shape[2]] |= active
    by_brick = _in_bricks(used)
    numbers = _numbered(by_brick)
    x, y, z = numbers.shape[:3]
    dense = numbers.reshape(x, y, z, BRICK, BRICK, BRICK).transpose(0, 3, 1, 4, 2, 5).reshape(used.shape)
    *brick, within = np.nonzero(by_brick)
    return dense, np.stack(brick, 1) * BRICK + np.stack([within >> 4, within >> 2 & 3, within & 3], 1)
