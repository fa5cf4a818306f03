"""Photos as meshes are rendered: from cameras without lens distortion, at a reduced size."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from unrender.data.frames import Frame
from unrender.geometry.camera import Camera
from unrender.geometry.rays import pixel_centers

MIN_VALID = 0.99
"""Fraction of the area of a reduced pixel that has to be valid."""


@dataclasses.dataclass(frozen=True)
class PhotoView:
    """A photo with a pinhole camera, in 8 bits per channel; it stays on the CPU until it is used."""

    name: str
    camera: Camera
    image: UInt8[Tensor, "height width 3"]
    """RGB, multiplied by alpha."""
    alpha: UInt8[Tensor, "height width"] | None = None
    """Coverage of each pixel; None for opaque photos."""
    valid: Bool[Tensor, "height width"] | None = None
    """Pixels to use; None for all."""

    def premultiplied(self, device: torch.device) -> Float[Tensor, "height width 3"]:
        """Return the colors in [0, 1], multiplied by alpha."""
        return self.image.to(device).float() / 255

    def coverage(self, device: torch.device) -> Float[Tensor, "height width"]:
        """Return alpha in [0, 1]; 1 for opaque photos."""
        if self.alpha is None:
            return torch.ones(self.image.shape[:2], device=device)
        return self.alpha.to(device).float() / 255

    def usable(self, device: torch.device) -> Bool[Tensor, "height width"]:
        """Return the pixels to use."""
        if self.valid is None:
            return torch.ones(self.image.shape[:2], dtype=torch.bool, device=device)
        return self.valid.to(device)

    def reduced(self, factor: int) -> "PhotoView":
        """Average blocks of pixels; the camera has the reduced size."""
        if factor == 1:
            return self
        height, width = (max(1, side // factor) for side in self.image.shape[:2])
        camera = self.camera.resize(height, width)
        channels = _resized(_channels(self), height, width)
        return _from_channels(self.name, camera, channels, self.alpha is not None, self.valid is not None)


def load_photo_views(frames: Sequence[Frame], size: int | None = None) -> list[PhotoView]:
    """Load photos with at most `size` pixels along the longer side, without lens distortion."""
    return [load_photo_view(frame, size) for frame in frames]


def load_photo_view(frame: Frame, size: int | None = None) -> PhotoView:
    """Load the photo of a frame with at most `size` pixels along the longer side.

    A camera with a lens is replaced with a pinhole camera of the same focal length; the photo is resampled, and pixels
    of which it has nothing are not valid.
    """
    view = frame.load_image()
    alpha = torch.ones_like(view.image[..., 0]) if view.alpha is None else view.alpha
    valid = torch.ones_like(alpha) if view.mask is None else view.mask.float()
    channels = torch.cat([view.image * alpha[..., None], alpha[..., None], valid[..., None]], -1)
    camera = frame.camera
    if size is not None and max(camera.height, camera.width) > size:
        camera = camera.resize_longest(size)
        channels = _resized(channels, camera.height, camera.width)
    has_valid = view.mask is not None or camera.lens is not None
    if camera.lens is not None:
        camera, channels = _undistorted(camera, channels)
    return _from_channels(frame.name, camera, channels, view.alpha is not None, has_valid)


def _undistorted(camera: Camera, channels: Tensor) -> tuple[Camera, Tensor]:
    """Resample an image for the camera without its lens, bilinearly; nothing is outside the image."""
    pinhole = camera.replace(lens=None)
    pixels = pixel_centers(pinhole)
    points = pinhole.unproject(torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1).flatten(0, 1))
    size = channels.new_tensor([camera.width, camera.height])
    grid = (camera.project(points)[:, :2] / size * 2 - 1).nan_to_num(nan=-2.0)
    found = grid_sample(channels.movedim(-1, 0)[None], grid.view(1, *pixels.shape), align_corners=False)
    return pinhole, found[0].movedim(0, -1)


def _resized(channels: Tensor, height: int, width: int) -> Tensor:
    """Average over the area of each pixel of a smaller image."""
    return interpolate(channels.movedim(-1, 0)[None], (height, width), mode="area")[0].movedim(0, -1)


def _channels(view: PhotoView) -> Tensor:
    device = view.image.device
    columns = (view.coverage(device), view.usable(device).float())
    return torch.cat([view.premultiplied(device), *(column[..., None] for column in columns)], -1)


def _from_channels(
    name: str, camera: Camera, channels: Tensor, has_alpha: bool, has_valid: bool
) -> PhotoView:
    """Return a view of premultiplied colors, alpha and validity."""
    pixels = (channels[..., :4] * 255).round().to(torch.uint8)
    return PhotoView(
        name,
        camera,
        pixels[..., :3].contiguous(),
        pixels[..., 3].contiguous() if has_alpha else None,
        channels[..., 4] >= MIN_VALID if has_valid else None,
    )
