"""A turntable of a volume: cameras around its visible part, rendered through a transfer function."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.camera import Camera, transform
from unrender.geometry.volume import Volume
from unrender.render.transfer import (
    Blocks,
    Preset,
    TransferFunction,
    render_volume,
    visible_blocks,
    window_transfer,
)

FOV_DEGREES = 30.0


@dataclasses.dataclass(frozen=True)
class VolumeOptions:
    """Volume rendering."""

    window: tuple[float, float] | None = None
    """Intensity window: values that become visible, and values of full opacity. Default: chosen by --preset."""
    preset: Preset = "upper-half"
    """Intensity window by percentiles: all values, the upper half, or the brightest tenth."""
    colormap: str = "inferno"
    """Matplotlib colormap over the window."""
    opacity: float = 0.9
    """Opacity of the densest values over a path of 1/20 of the volume's diagonal, between 0 and 1."""
    spacing: tuple[float, float, float] | None = None
    """Voxel size along x, y, z. Default: from the file."""
    frame: int | None = None
    """Index of the volume in a file with several, such as a time series, from 0 on."""
    elevation: float = 15.0
    """Elevation of the camera in degrees, between -90 and 90."""
    up: Literal["x", "y", "z", "-x", "-y", "-z"] = "z"
    """Up axis of the volume; z in medical formats."""
    step: float | None = None
    """Distance between samples on a ray, in world units. Default: the smallest side of a voxel."""

    def check(self) -> None:
        """Raise InputError for values out of range."""
        if self.spacing is not None and not all(0 < side < math.inf for side in self.spacing):
            raise InputError(f"--spacing {self.spacing}: must be three lengths > 0")
        if not -90 < self.elevation < 90:
            raise InputError(f"--elevation {self.elevation:g}: must be between -90 and 90 degrees")

    @property
    def up_vector(self) -> list[float]:
        """The up axis as a unit vector."""
        sign = -1.0 if self.up.startswith("-") else 1.0
        return [sign * (axis == self.up[-1]) for axis in "xyz"]


@dataclasses.dataclass(frozen=True)
class VolumeScene:
    """A volume, its transfer function, and the blocks of it that are visible."""

    volume: Volume
    transfer: TransferFunction
    blocks: Blocks


@dataclasses.dataclass(frozen=True)
class TurntableView:
    """One image of the turntable."""

    index: int
    last_index: int
    image: Tensor


def prepare_volume(volume: Volume, options: VolumeOptions) -> VolumeScene:
    """Choose the transfer function and find the visible blocks; InputError if there are none."""
    transfer = window_transfer(
        volume, options.window, preset=options.preset, colormap=options.colormap, opacity=options.opacity
    )
    blocks = visible_blocks(volume, transfer)
    if not bool(blocks.occupied.any()):
        raise InputError("no value of the volume is inside the window: give another --window or --preset")
    return VolumeScene(volume, transfer, blocks)


def turntable_cameras(scene: VolumeScene, options: VolumeOptions, count: int, size: int) -> list[Camera]:
    """Return cameras on a circle around the visible part, whose bounding sphere fills the images."""
    center, radius = _bounding_sphere(scene.blocks)
    return [_camera(center, radius, options, size, 360 * index / count) for index in range(count)]


def render_turntable(
    scene: VolumeScene, cameras: Sequence[Camera], step: float | None, background: tuple[float, float, float]
) -> Iterator[TurntableView]:
    """Render the volume from each camera."""
    color = scene.volume.density.new_tensor(background)
    for index, camera in enumerate(cameras):
        output = render_volume(
            scene.volume, scene.transfer, camera, step=step, background=color, blocks=scene.blocks
        )
        yield TurntableView(index, len(cameras) - 1, output.color.clamp(0, 1))


def describe(view: TurntableView) -> str:
    """Return the progress line of a view."""
    return f"rendering view {view.index + 1} of {view.last_index + 1}"


def _camera(center: Tensor, radius: float, options: VolumeOptions, size: int, degrees: float) -> Camera:
    axis, sign = "xyz".index(options.up[-1]), -1.0 if options.up.startswith("-") else 1.0
    upward, forward, aside = torch.eye(3, device=center.device).roll(-axis, 0).unbind()
    azimuth, elevation = math.radians(degrees), math.radians(options.elevation)
    around = math.cos(azimuth) * forward + sign * math.sin(azimuth) * aside
    direction = math.cos(elevation) * around + math.sin(elevation) * sign * upward
    eye = center + direction * radius / math.sin(math.radians(FOV_DEGREES / 2))
    return Camera.look_at(eye, center, sign * upward, fov_degrees=FOV_DEGREES, height=size, width=size)


def _bounding_sphere(blocks: Blocks) -> tuple[Tensor, float]:
    """Return center and radius of a sphere around all visible blocks, in world units."""
    indices = blocks.occupied.nonzero().flip(-1)
    world_from_blocks = torch.linalg.inv(blocks.blocks_from_world)
    centers = transform(world_from_blocks, indices.float() + 0.5)
    center = (centers.amin(0) + centers.amax(0)) / 2
    half_diagonal = world_from_blocks[:3, :3].abs().sum(1).norm() / 2
    return center, float((centers - center).norm(dim=-1).max() + half_diagonal)
