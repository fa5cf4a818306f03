"""What the viewer renders itself, image by image: fields, volumes, and cropped parts of them."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.errors import InputError
from unrender.fields.protocol import Croppable, RenderedField
from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays, rays_of
from unrender.geometry.volume import Volume
from unrender.render.march import RenderOutput, march
from unrender.render.sample import RaySamples, sample_occupied
from unrender.render.transfer import TransferFunction, apply_transfer_function, visible_blocks

MIN_TRANSMITTANCE = 1e-3
"""Transmittance below which a ray is terminated."""


class Renderable(Protocol):
    """Anything that can be rendered from a camera."""

    def render(
        self, camera: Camera, background: Tensor | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Render a view; with `quick`, with fewer samples per ray."""


@runtime_checkable
class Sampled(Protocol):
    """A field that chooses its own samples on rays, as every `Field` does."""

    @property
    def background(self) -> Tensor:
        """Background color."""

    def __call__(self, points: Tensor, directions: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return density and color at points, seen along unit directions, both [n, 3]."""

    def sample(self, rays: Rays, *, quick: bool = False) -> RaySamples:
        """Return samples in the occupied space along each ray."""


class CroppedField:
    """The part of a field inside a box."""

    def __init__(self, field: Sampled, low: Float[Tensor, "3"], high: Float[Tensor, "3"]) -> None:
        self._field = field
        self._low, self._high = (corner.to(field.background.device) for corner in (low, high))

    def _query(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        density, color = self._field(points, directions)
        inside = ((points >= self._low) & (points <= self._high)).all(-1)
        return density * inside, color

    @torch.no_grad()
    def render(
        self, camera: Camera, background: Tensor | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Render a view; with `quick`, with fewer samples per ray."""
        own = self._field.background
        output = march(
            self._query,
            rays_of(camera.to(own.device)),
            lambda rays: self._field.sample(rays, quick=quick),
            background=own if background is None else background.to(own.device),
            stop_below=MIN_TRANSMITTANCE,
        )
        return RenderOutput(output.color.clamp(0, 1), output.opacity, output.distance)


class VolumeRenderable:
    """A scalar volume seen through a transfer function."""

    def __init__(self, volume: Volume, transfer: TransferFunction) -> None:
        self.background = volume.density.new_zeros(3)
        self._field, self._blocks = (
            apply_transfer_function(volume, transfer),
            visible_blocks(volume, transfer),
        )
        self._step = float(volume.world_from_volume[:3, :3].norm(dim=0).min())
        everywhere = volume.density.new_tensor([-torch.inf] * 3)
        self._whole = CroppedField(self, everywhere, -everywhere)

    def __call__(self, points: Tensor, directions: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return density and color at points, both [n, 3]."""
        return self._field(points, directions)

    def sample(self, rays: Rays, *, quick: bool = False) -> RaySamples:
        """Return samples in visible blocks, one smallest voxel side apart, or two with `quick`."""
        step = self._step * (2 if quick else 1)
        return sample_occupied(rays, self._blocks.occupied, self._blocks.blocks_from_world, step)

    def render(
        self, camera: Camera, background: Tensor | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Render a view; with `quick`, with fewer samples per ray."""
        return self._whole.render(camera, background, quick=quick)


class EmptyField:
    """A field with zero density everywhere."""

    def __init__(self, background: Tensor) -> None:
        self._background = background.detach()

    def render(
        self, camera: Camera, background: Tensor | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Return the background."""
        color, shape = self._background if background is None else background, (camera.height, camera.width)
        return RenderOutput(color.expand(*shape, 3), color.new_zeros(shape), color.new_zeros(shape))


def crop(field: Renderable, low: Float[Tensor, "3"], high: Float[Tensor, "3"]) -> Renderable:
    """Return the part of a field inside a box; of voxels, those whose centers are inside."""
    if isinstance(field, Croppable) and isinstance(field, RenderedField | Sampled):
        return field.crop(low, high) or EmptyField(field.background)
    if not isinstance(field, Sampled):
        raise InputError(f"viewer: a {type(field).__name__} cannot be cropped: it has no `sample`")
    return CroppedField(field, low, high)
