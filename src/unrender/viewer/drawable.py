"""What the viewer draws itself, picture by picture: fields, volumes, and parts of them."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.errors import InputError
from unrender.fields.protocol import FieldSpace, RenderOutput
from unrender.fields.voxels import SparseVoxels
from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays, rays_of
from unrender.geometry.volume import Volume
from unrender.render.march import march
from unrender.render.sample import RaySamples, sample_occupied
from unrender.render.transfer import TransferFunction, apply_transfer_function, visible_blocks

STOP = 1e-3
"""Light that is left at which a ray ends."""


class Drawable(Protocol):
    """What a camera can see."""

    def render(
        self, camera: Camera, background: Tensor | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Return what a camera sees; with `quick`, at fewer places."""


@runtime_checkable
class Sampled(Protocol):
    """A field that says where on rays there is something, as all `RadianceField`s do."""

    @property
    def background(self) -> Tensor:
        """Color behind everything."""

    def __call__(self, points: Tensor, directions: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return density and color, at points seen in directions of unit length, both [n, 3]."""

    def samples(self, rays: Rays, *, quick: bool = False) -> RaySamples:
        """Return where on rays, in one row, there can be something to see."""


class Part:
    """What of a field lies in a box."""

    def __init__(self, field: Sampled, low: Float[Tensor, "3"], high: Float[Tensor, "3"]) -> None:
        self._field, self._low, self._high = field, low, high

    def _within(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        density, color = self._field(points, directions)
        inside = ((points >= self._low) & (points <= self._high)).all(-1)
        return density * inside, color

    @torch.no_grad()
    def render(
        self, camera: Camera, background: Tensor | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Return what a camera sees; with `quick`, at fewer places."""
        seen = march(
            self._within,
            rays_of(camera),
            lambda rays: self._field.samples(rays, quick=quick),
            background=self._field.background if background is None else background,
            stop_below=STOP,
        )
        return RenderOutput(seen.color.clamp(0, 1), seen.opacity, seen.mean_distance)


class VisibleVolume:
    """A volume of values, as a transfer function shows it."""

    def __init__(self, volume: Volume, transfer: TransferFunction) -> None:
        self.background = volume.density.new_zeros(3)
        self._field, self._blocks = (
            apply_transfer_function(volume, transfer),
            visible_blocks(volume, transfer),
        )
        self._step = float(volume.world_from_volume[:3, :3].norm(dim=0).min())
        everywhere = volume.density.new_tensor([-torch.inf] * 3)
        self._whole = Part(self, everywhere, -everywhere)

    def __call__(self, points: Tensor, directions: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return density and color, at points seen in directions of unit length, both [n, 3]."""
        return self._field(points, directions)

    def samples(self, rays: Rays, *, quick: bool = False) -> RaySamples:
        """Return places a voxel's smallest side apart, or two with `quick`, where there is something to see."""
        step = self._step * (2 if quick else 1)
        return sample_occupied(rays, self._blocks.occupied, self._blocks.blocks_from_world, step)

    def render(
        self, camera: Camera, background: Tensor | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Return what a camera sees; with `quick`, at fewer places."""
        return self._whole.render(camera, background, quick=quick)


class Nothing:
    """An empty field."""

    def __init__(self, background: Tensor) -> None:
        self._background = background.detach()

    def render(
        self, camera: Camera, background: Tensor | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Return the background."""
        behind, shape = self._background if background is None else background, (camera.height, camera.width)
        return RenderOutput(behind.expand(*shape, 3), behind.new_zeros(shape), behind.new_zeros(shape))


def crop(thing: Drawable, low: Float[Tensor, "3"], high: Float[Tensor, "3"]) -> Drawable:
    """Return what of a field lies in a box; of voxels, those with their middles in it."""
    if isinstance(thing, SparseVoxels):
        middles = _middles(thing)
        inside = ((middles >= low) & (middles <= high)).all(-1)
        return thing.keep(inside)[0] if bool(inside.any()) else Nothing(thing.background)
    if not isinstance(thing, Sampled):
        raise InputError(f"viewer: a {type(thing).__name__} cannot be cropped: it has no `samples`")
    return Part(thing, low, high)


def _middles(field: SparseVoxels) -> Float[Tensor, "voxels 3"]:
    """Return where the voxels are in the world."""
    places = field.table.voxel_places + 0.5
    if field.contracted:
        return FieldSpace(field.middle, field.unit, True).from_cube(places / field.table.shape[0])
    return field.middle + places * field.unit
