"""Volume rendering of scalar data: transfer functions from values to density and color."""

import math
from typing import Literal, NamedTuple

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
from unrender.render.march import FieldFunction, RenderOutput, march
from unrender.render.sample import RaySamples, sample_occupied

BLOCK = 4
"""Voxels, at most, along each side of the blocks that are skipped where nothing in them is visible."""
ENTRIES = 256
"""Number of entries of the table that `window_transfer` makes."""
THICKNESS = 0.05
"""Length, in diagonals of the volume, over which `opacity` is defined."""
PRESETS = {"all": (0.0, 1.0), "upper-half": (0.5, 0.999), "bright": (0.9, 0.9995)}
"""Windows by quantiles of the voxels above the lowest value."""
Preset = Literal["all", "upper-half", "bright"]
MAX_COUNTED = 1_000_000


class TransferFunction(TensorStruct):
    """A table from values to density and color; linear between its entries, and constant beyond its ends."""

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
        if not len(self.density) / (self.high - self.low) <= torch.finfo(torch.float32).max:
            raise InputError(
                f"TransferFunction: values from {self.low:g} to {self.high:g} are too close for 32-bit floats"
            )

    def __call__(self, values: Float[Tensor, "*points"]) -> tuple[Tensor, Tensor]:
        """Return density and color of values.

        Differentiable in: density, color, values.
        """
        last = len(self.density) - 1
        position = ((values - self.low) * (last / (self.high - self.low))).clamp(0, last)
        entry = position.detach().floor().clamp(max=last - 1).long()
        fraction = (position - entry)[..., None]
        table = torch.cat([self.density[:, None], self.color], 1)
        entries = torch.lerp(table[entry], table[entry + 1], fraction)
        return entries[..., 0], entries[..., 1:]


class Blocks(NamedTuple):
    """Occupancy grid of a volume: the blocks of voxels that are visible."""

    occupied: Bool[Tensor, "depth height width"]
    blocks_from_world: Float[Tensor, "4 4"]


@checked
def window_transfer(
    volume: Volume,
    window: tuple[float, float] | None = None,
    *,
    preset: Preset = "upper-half",
    colormap: str = "inferno",
    opacity: float = 0.9,
) -> TransferFunction:
    """Return a transfer function whose density rises over a window of values, in the colors of a matplotlib colormap.

    Without a window, the preset chooses one between two percentiles of the values above the lowest, which usually is
    that of empty space. `opacity` is that of the highest density, over a 20th of the volume's diagonal.
    """
    from matplotlib import colormaps

    if not 0 < opacity < 1:
        raise InputError(f"window_transfer: `opacity` should be between 0 and 1, got {opacity:g}")
    if colormap not in colormaps:
        raise InputError(
            f"window_transfer: matplotlib has no `colormap` {colormap!r}; try viridis, bone, hot"
        )
    low, high = _find_window(volume, preset) if window is None else window
    if not -math.inf < low < high < math.inf:
        raise InputError(
            f"window_transfer: the second of `window` should be higher than the first, got {low:g} {high:g}"
        )
    part = torch.linspace(0, 1, ENTRIES).to(volume.density)
    diagonal = float((volume.corners[-1] - volume.corners[0]).norm())
    color = torch.from_numpy(colormaps[colormap](part.cpu().numpy())[:, :3]).to(part)
    return TransferFunction(low, high, -math.log(1 - opacity) / (THICKNESS * diagonal) * part, color)


def _find_window(volume: Volume, preset: str) -> tuple[float, float]:
    values = volume.density.detach().flatten()
    values = values[:: 1 + len(values) // MAX_COUNTED]
    lowest = float(values.min())
    above_lowest = values[values > lowest]
    if len(above_lowest) == 0:
        raise InputError("window_transfer: all voxels have the same value; give a `window`")
    low, high = (
        float(end) for end in torch.quantile(above_lowest, torch.tensor(PRESETS[preset]).to(above_lowest))
    )
    return (low, high) if low < high else (lowest, high)


@checked
def apply_transfer_function(volume: Volume, transfer: TransferFunction) -> FieldFunction:
    """Return the field of a scalar volume: values are interpolated, then mapped to density and color.

    Within half a voxel of the border, values are those of the nearest centers.
    """
    values, size, matrix = volume.density[..., None], volume.size, volume.volume_from_world

    def field(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        inside = transform(matrix, points).clamp(min=0.5).minimum(size - 0.5)
        return transfer(sample_grid(values, inside)[:, 0])

    return field


@checked
def visible_blocks(volume: Volume, transfer: TransferFunction) -> Blocks:
    """Find the blocks of voxels that, with the voxels around them, contain values of a density > 0."""
    low, high = (_over_blocks(volume.density, most) for most in (False, True))
    last = len(transfer.density) - 1
    scale = last / (transfer.high - transfer.low)
    first = ((low - transfer.low) * scale).floor().clamp(0, last).long()
    final = ((high - transfer.low) * scale).ceil().clamp(0, last).long()
    visible = torch.nn.functional.pad((transfer.density > 0).long().cumsum(0), (1, 0))
    occupied = visible[final + 1] > visible[first]
    per_voxel = volume.size.new_tensor(occupied.shape[::-1]) / volume.size
    rows = torch.cat([per_voxel, per_voxel.new_ones(1)])
    return Blocks(occupied, rows[:, None] * volume.volume_from_world)


def _over_blocks(values: Tensor, most: bool) -> Tensor:
    """Return the lowest or the highest value in each block, dilated by one voxel."""
    for axis in range(3):
        size = values.shape[axis]
        number = -(-size // BLOCK)
        first = (torch.arange(number, dtype=torch.float64) * size / number - 0.5).floor().long()
        indices = (first[:, None] + torch.arange(BLOCK + 2)).clamp(0, size - 1).to(values.device)
        each = [values.index_select(axis, column) for column in indices.unbind(1)]
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
) -> RenderOutput:
    """Render a scalar volume, in axes ``height width``.

    `step` is the distance between samples, in world units; by default a voxel's smallest side. Invisible blocks are
    skipped; pass `blocks` (`visible_blocks`) to find them only once for many views.
    Differentiable in: values of the volume, transfer function, background.
    """
    sides = volume.world_from_volume[:3, :3].norm(dim=0)
    length = float(sides.min()) if step is None else step
    visible = visible_blocks(volume, transfer) if blocks is None else blocks

    def samples(rays: Rays) -> RaySamples:
        return sample_occupied(rays, visible.occupied, visible.blocks_from_world, length)

    return march(
        apply_transfer_function(volume, transfer),
        rays_of(camera),
        samples,
        background=background,
        stop_below=1e-3,
    )
