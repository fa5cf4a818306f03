"""Volumes of measured values, made visible: which values absorb light, and in what color they shine."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender._checked import checked
from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.camera import Camera, transform
from unrender.geometry.rays import Rays, rays_of
from unrender.geometry.volume import Volume
from unrender.kernels.sample_grid import sample_grid
from unrender.render.march import Field, Marched, march
from unrender.render.sample import RaySamples, sample_occupied

BLOCK = 4
"""Voxels, at most, along each side of the blocks that are skipped where nothing in them is visible."""


class TransferFunction(TensorStruct):
    """A table from values to what is seen; between its entries it is linear, and beyond its ends constant."""

    low: float
    """The value of the first entry."""
    high: float
    """The value of the last."""
    density: Float[Tensor, " entries"]
    """Absorption per world unit, ≥ 0."""
    color: Float[Tensor, "entries channels"]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (-math.inf < self.low < self.high < math.inf) or len(self.density) < 2:
            raise InputError(
                "TransferFunction: needs two entries or more, from `low` to a higher `high`, got "
                f"{len(self.density)} from {self.low:g} to {self.high:g}"
            )

    def __call__(self, values: Float[Tensor, "*points"]) -> tuple[Tensor, Tensor]:
        """Return density and color of values.

        Differentiable in: density, color, values.
        """
        last = len(self.density) - 1
        place = ((values - self.low) * (last / (self.high - self.low))).clamp(0, last)
        entry = place.detach().floor().clamp(max=last - 1).long()
        share = (place - entry)[..., None]
        table = torch.cat([self.density[:, None], self.color], 1)
        found = torch.lerp(table[entry], table[entry + 1], share)
        return found[..., 0], found[..., 1:]


class Blocks(NamedTuple):
    """Which parts of a volume are worth looking at."""

    occupied: Bool[Tensor, "depth height width"]
    blocks_from_world: Float[Tensor, "4 4"]


@checked
def classify(volume: Volume, transfer: TransferFunction) -> Field:
    """Make a field of a volume of values: interpolate the values, then look them up.

    In the outermost half voxel the values are those of the nearest centers.
    """
    values, size, matrix = volume.density[..., None], volume.size, volume.volume_from_world

    def field(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        inside = transform(matrix, points).clamp(min=0.5).minimum(size - 0.5)
        return transfer(sample_grid(values, inside)[:, 0])

    return field


@checked
def visible_blocks(volume: Volume, transfer: TransferFunction) -> Blocks:
    """Find the blocks of voxels in which, with the voxels around them, there are values that absorb light."""
    low, high = (_over_blocks(volume.density, most) for most in (False, True))
    last = len(transfer.density) - 1
    scale = last / (transfer.high - transfer.low)
    first = ((low - transfer.low) * scale).floor().clamp(0, last).long()
    final = ((high - transfer.low) * scale).ceil().clamp(0, last).long()
    absorbing = torch.cat([torch.zeros(1), (transfer.density > 0).float().cumsum(0)])
    occupied = absorbing[final + 1] > absorbing[first]
    per_voxel = volume.size.new_tensor(occupied.shape[::-1]) / volume.size
    rows = torch.cat([per_voxel, per_voxel.new_ones(1)])
    return Blocks(occupied, rows[:, None] * volume.volume_from_world)


def _over_blocks(values: Tensor, most: bool) -> Tensor:
    """Return the lowest or the highest value in each block and one voxel around it."""
    for axis in range(3):
        size = values.shape[axis]
        number = -(-size // BLOCK)
        first = (torch.arange(number, dtype=torch.float64) * size / number - 0.5).floor().long()
        places = (first[:, None] + torch.arange(BLOCK + 2)).clamp(0, size - 1)
        each = [values.index_select(axis, column) for column in places.unbind(1)]
        values = each[0]
        for other in each[1:]:
            values = torch.maximum(values, other) if most else torch.minimum(values, other)
    return values


@checked
def render_volume(
    volume: Volume,
    transfer: TransferFunction,
    camera: Camera,
    *,
    step: float | None = None,
    background: Float[Tensor, " channels"] | None = None,
    blocks: Blocks | None = None,
) -> Marched:
    """Take a picture of a volume of values, in axes ``height width``.

    `step` is the distance between samples, in world units; without it, a voxel's smallest side. What the transfer
    function makes invisible is passed over; `blocks` (`visible_blocks`) saves finding that out for each view.
    Differentiable in: values of the volume, transfer function, background.
    """
    sides = volume.world_from_volume[:3, :3].norm(dim=0)
    length = float(sides.min()) if step is None else step
    seen = visible_blocks(volume, transfer) if blocks is None else blocks

    def samples(rays: Rays) -> RaySamples:
        return sample_occupied(rays, seen.occupied, seen.blocks_from_world, length)

    return march(classify(volume, transfer), rays_of(camera), samples, background=background, stop_below=1e-3)
