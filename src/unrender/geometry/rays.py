"""Rays: half-lines through the world, one per pixel."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender._checked import checked
from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.camera import Camera


class Rays(TensorStruct):
    """Points origin + t · direction with t ≥ 0, the distance."""

    origins: Float[Tensor, "*batch 3"]
    directions: Float[Tensor, "*batch 3"]
    """Unit length; nan for a pixel to which the camera maps no direction."""


class RayInterval(NamedTuple):
    """A part of each ray, by distances along it; empty where t_far ≤ t_near."""

    t_near: Float[Tensor, "*batch"]
    t_far: Float[Tensor, "*batch"]


@checked
def rays_through(camera: Camera, pixels: Float[Tensor, "*pixels 2"]) -> Rays:
    """Return the rays along which a camera sees positions in its image (x, y); pixel centers are at +0.5.

    The axes of cameras and pixels broadcast: one camera serves all pixels, and `camera[:, None]` serves a
    row of pixels with each camera of a batch. Rays start at the camera; those of an orthographic camera
    are parallel and start in its plane.
    Differentiable in: pixels and the camera.
    """
    return Rays(*camera.rays(pixels))


def rays_of(camera: Camera) -> Rays:
    """Return the rays through all pixel centers, in axes ``*batch height width``.

    Differentiable in: the camera.
    """
    each = camera[..., None, None] if camera.batch_shape else camera
    return rays_through(each, pixel_centers(camera))


def present_rays(camera: Camera) -> tuple[Rays, Bool[Tensor, "height width"]]:
    """Return the rays of those pixels of one camera that have a direction, in a row, and which these are."""
    rays = rays_of(camera)
    there = rays.directions.isfinite().all(-1)
    return rays.map(lambda t: t[there]), there


def pixel_solid_angles(camera: Camera) -> Float[Tensor, "height width"]:
    """Return the solid angle of each pixel of one camera without a lens, in steradians; 0 beyond the poles.

    Equirectangular pixels shrink with the cosine of the latitude: weight statistics of 360° images by it.
    perspective: 1 / (fx fy (1 + x² + y²)^1.5), where x and y are coordinates in the plane at depth 1.
    equirectangular: Δlongitude · (sin latitude of the lower edge − that of the upper edge).
    Differentiable in: the camera.
    """
    if camera.batch_shape or camera.lens is not None or camera.projection == "orthographic":
        raise InputError(
            "pixel_solid_angles: `camera` should be a single perspective or equirectangular camera without a lens"
        )
    offsets = pixel_centers(camera) - camera.center
    if camera.projection == "perspective":
        return (1 + (offsets / camera.focal).square().sum(-1)) ** -1.5 / camera.focal.prod()
    upper, lower = (
        ((offsets[..., 1] + half) / camera.focal[1]).clamp(-math.pi / 2, math.pi / 2).sin()
        for half in (-0.5, 0.5)
    )
    return (lower - upper) / camera.focal[0]


def pixel_centers(camera: Camera) -> Float[Tensor, "height width 2"]:
    """Return x and y of all pixel centers."""
    y, x = (
        torch.arange(n, dtype=camera.focal.dtype, device=camera.focal.device) + 0.5
        for n in (camera.height, camera.width)
    )
    return torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], -1)


@checked
def clip_to_box(rays: Rays, low: Float[Tensor, "3"], high: Float[Tensor, "3"]) -> RayInterval:
    """Return where rays enter and leave a box with sides along the axes; t_near is 0 for a ray that starts inside.

    A ray misses the box where t_far ≤ t_near; one of nan does so everywhere, with t_near = t_far = 0.
    Differentiable in: rays, low, high, where a ray hits the box.
    """
    moves = rays.directions != 0
    steps = torch.where(moves, rays.directions, 1)
    inside = (rays.origins > low) & (rays.origins < high)
    never = torch.where(
        inside, torch.inf, -torch.inf
    )  # along this axis a ray leaves the box never, or always
    first, second = (low - rays.origins) / steps, (high - rays.origins) / steps
    near = torch.where(moves, torch.minimum(first, second), -never).amax(-1).clamp(min=0)
    far = torch.where(moves, torch.maximum(first, second), never).amin(-1)
    lost = near.isnan() | far.isnan()
    return RayInterval(near.masked_fill(lost, 0), far.masked_fill(lost, 0))
