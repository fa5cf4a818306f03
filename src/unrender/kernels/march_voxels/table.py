"""Which voxels of a grid exist, so that rays find them and pass over the rest quickly."""

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
"""Steps to the corners of a voxel; z changes fastest."""


class VoxelTable(TensorStruct):
    """The voxels of a sparse grid, in bricks of 4 × 4 × 4, and the corners that they share.

    Values live at the corners: between them they are interpolated. Bricks, the voxels in them and corners are
    numbered along x, then y, then z, so that what is close in space is close in memory.
    """

    bricks: Int[Tensor, "x y z"]
    """The number of a brick; where it holds no voxel, minus the steps to the nearest that does (diagonals are 1)."""
    voxels: Int[Tensor, "bricks 64"]
    """The number of each of a brick's voxels, which follow one another, or −1."""
    corners: Int[Tensor, "voxels 8"]
    """The corners of each voxel; z changes fastest, then y."""
    voxel_places: Int[Tensor, "voxels 3"]
    """Where a voxel lies in the grid: its lowest corner."""
    corner_places: Int[Tensor, "corners 3"]

    @classmethod
    @checked
    def from_mask(cls, active: Bool[Tensor, "x y z"]) -> Self:
        """Make the table of the voxels marked in a dense grid, whose sides are multiples of 4."""
        if any(side % BRICK for side in active.shape) or not bool(active.any()):
            raise InputError(
                f"VoxelTable: sides should be multiples of {BRICK} and a voxel be marked, got {list(active.shape)}"
            )
        mask = active.cpu().numpy()
        of_bricks = _in_bricks(mask)
        filled = np.asarray(of_bricks.any(-1))
        places_of_bricks = np.argwhere(filled)
        voxels = _numbered(of_bricks[filled])
        brick, place = np.nonzero(of_bricks[filled])
        places = places_of_bricks[brick] * BRICK + np.stack([place >> 4, place >> 2 & 3, place & 3], 1)
        corner_numbers, corner_places = _number_corners(mask)
        around = places[:, None] + CORNERS
        corners = corner_numbers[around[..., 0], around[..., 1], around[..., 2]]
        arrays = (_bricks_or_distance(filled), voxels, corners, places, corner_places)
        return cls(*(torch.from_numpy(a.astype(np.int32)).to(active.device) for a in arrays))

    @property
    def num_voxels(self) -> int:
        """How many voxels exist."""
        return len(self.corners)

    @property
    def num_corners(self) -> int:
        """How many corners they have together."""
        return len(self.corner_places)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The sides of the whole grid, in voxels."""
        x, y, z = (side * BRICK for side in self.bricks.shape)
        return x, y, z

    def corner_numbers(self) -> Int[Tensor, "x y z"]:
        """Return the number of the corner at each place of a grid with one brick more along each side, or −1."""
        device = self.corner_places.device
        numbers = torch.full([side + BRICK for side in self.shape], -1, dtype=torch.int32, device=device)
        numbers[self.corner_places.long().unbind(-1)] = torch.arange(
            self.num_corners, dtype=torch.int32, device=device
        )
        return numbers

    def neighbors(self) -> Int[Tensor, "corners 6"]:
        """Return the corners next to each along −x, +x, −y, +y, −z, +z, or −1."""
        numbers = torch.nn.functional.pad(self.corner_numbers(), (1, 0) * 3, value=-1)
        places = self.corner_places.long() + 1
        steps = places.new_tensor([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]])
        return torch.stack([numbers[(places + step).unbind(-1)] for step in steps], 1)


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
    """Return the numbers of the corners in a dense grid, brick by brick, and where each corner lies."""
    used = np.zeros([side + BRICK for side in active.shape], bool)
    for x, y, z in CORNERS:
        used[x : x + active.shape[0], y : y + active.shape[1], z : z + active.shape[2]] |= active
    by_brick = _in_bricks(used)
    numbers = _numbered(by_brick)
    x, y, z = numbers.shape[:3]
    dense = numbers.reshape(x, y, z, BRICK, BRICK, BRICK).transpose(0, 3, 1, 4, 2, 5).reshape(used.shape)
    *brick, place = np.nonzero(by_brick)
    return dense, np.stack(brick, 1) * BRICK + np.stack([place >> 4, place >> 2 & 3, place & 3], 1)
