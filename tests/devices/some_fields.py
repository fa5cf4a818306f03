"""A small field of each registered type, in which there is something to see."""

from collections.abc import Callable

import torch
from torch import nn

from unrender.fields.hash_nerf import HashNeRF
from unrender.fields.nerf import NeRF, TutorialNeRF
from unrender.fields.occupancy import OccupancyGrid
from unrender.fields.trainable import TrainableField
from unrender.fields.voxels import SparseVoxels
from unrender.geometry.scene_box import SceneBox
from unrender.kernels.hash_grid import HashLevels


def hash_field(contracted: bool = False) -> HashNeRF:
    cells = torch.ones(4, 4, 4, dtype=torch.bool)
    cells[0] = False
    field = HashNeRF(
        SceneBox.cube(torch.zeros(3), 1.0, contracted=contracted),
        HashLevels.geometric(4, 8, 2, 8),
        OccupancyGrid(cells),
        step=0.3,
        generator=torch.Generator().manual_seed(0),
    )
    with torch.no_grad():
        field.density_layers[-1].bias[0] = 2.0  # type: ignore[index]
    return field


def voxels(contracted: bool = False) -> SparseVoxels:
    mask = torch.zeros(8, 8, 8, dtype=torch.bool)
    mask[2:6, 2:6, 2:6] = True
    box = SceneBox.cube(torch.zeros(3), 1.0, contracted=contracted)
    return SparseVoxels.from_mask(mask, box, degree=1, opacity=0.9)


def paper() -> NeRF:
    field = NeRF.paper(
        SceneBox.cube(torch.zeros(3), 1.0), width=8, generator=torch.Generator().manual_seed(0)
    )
    nn.init.constant_(field.fine_network.density.bias, 5.0)  # type: ignore[union-attr, arg-type]
    return field


def tutorial() -> TutorialNeRF:
    field = NeRF.tutorial(
        SceneBox.cube(torch.zeros(3), 1.0), width=8, generator=torch.Generator().manual_seed(0)
    )
    nn.init.constant_(field.fine_network.density.bias, 2.0)  # type: ignore[union-attr, arg-type]
    return field


FIELDS: dict[str, Callable[[], TrainableField]] = {
    "hash": hash_field,
    "contracted hash": lambda: hash_field(contracted=True),
    "voxels": voxels,
    "contracted voxels": lambda: voxels(contracted=True),
    "paper": paper,
    "tutorial": tutorial,
}
