"""What cameras see in a field: rays of a few rows of the picture at a time, marched through it."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.fields.protocol import RadianceField, RenderOutput
from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays, rays_of
from unrender.render.march import Field, march

POINTS_AT_ONCE = 262_144
"""At which a field is asked: its own memory does not grow with the number of samples on a ray."""


@torch.no_grad()
@checked
def render_field(
    field: RadianceField,
    camera: Camera,
    background: Float[Tensor, "3"] | None = None,
    *,
    quick: bool = False,
    stop_below: float = 1e-3,
    rays_at_once: int = 16_384,
) -> RenderOutput:
    """Return what a camera sees in a field, at the places where the field says that there can be something.

    Behind everything is `background`, or the color that the field learned for it. Colors are in [0, 1]. Rays of an
    absent direction, beyond the reach of a lens, show the background, and the field is not asked about them. Samples
    that less than `stop_below` of the light reaches are left out. Memory, beside the picture's own, is that of
    `rays_at_once` rays, or of a row of the picture if that is longer.
    Differentiable in: nothing.
    """
    if camera.batch_shape:
        raise InputError(f"render_field: `camera` should be one, got {list(camera.batch_shape)} of them")
    if rays_at_once < 1:
        raise InputError(f"render_field: `rays_at_once` should be at least 1, got {rays_at_once}")
    behind = (field.background if background is None else background).detach()
    shape = (camera.height, camera.width)
    color, opacity, distance = behind.repeat(*shape, 1), behind.new_zeros(shape), behind.new_zeros(shape)
    rows = max(1, rays_at_once // camera.width)
    for top in range(0, camera.height, rows):
        band = camera.crop(0, top, height=min(rows, camera.height - top), width=camera.width)
        rays = rays_of(band)
        there = ~rays.directions.isnan().any(-1)
        seen = march(
            lambda points, directions: ask_in_parts(field, points, directions),
            Rays(rays.origins[there], rays.directions[there]),
            lambda part: field.samples(part, quick=quick),
            background=behind,
            stop_below=stop_below,
            rays_at_once=rays_at_once,
        )
        for image, values in (
            (color, seen.color.clamp(0, 1)),
            (opacity, seen.opacity),
            (distance, seen.mean_distance),
        ):
            image[top : top + band.height][there] = values
    return RenderOutput(color, opacity, distance)


def ask_in_parts(
    field: RadianceField | Field, points: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]
) -> tuple[Tensor, Tensor]:
    """Return what a field says of points, asked about some of them after others."""
    parts = zip(points.split(POINTS_AT_ONCE), directions.split(POINTS_AT_ONCE), strict=True)
    density, color = zip(*(field(*part) for part in parts), strict=True)
    return torch.cat(density), torch.cat(color)
