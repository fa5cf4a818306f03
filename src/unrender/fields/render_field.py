"""Rendering of any field from a camera: rays of a few rows of the image at a time, marched through the field."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unrender._checked import checked
from unrender.errors import InputError
from unrender.fields.protocol import Field, RenderedField
from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays, rays_of
from unrender.render.march import FieldFunction, RenderOutput, march

POINTS_PER_QUERY = 262_144
"""Points at which a field is evaluated at once: its memory does not grow with the number of samples on a ray."""


@torch.no_grad()
@checked
def render_field(
    field: Field,
    camera: Camera,
    background: Float[Tensor, "3"] | None = None,
    *,
    quick: bool = False,
    stop_below: float = 1e-3,
    rays_per_chunk: int = 16_384,
) -> RenderOutput:
    """Render a field, evaluated at the samples that `field.sample` chooses.

    Colors, in [0, 1], are composited on `background`, by default the field's own. Rays without a direction, outside the
    field of view of a lens, show the background. Rays terminate at a transmittance below `stop_below`. The camera
    is moved to the device of the field. Memory, besides that of the image, is that of `rays_per_chunk` rays,
    or of one row of the image if that is longer.
    Differentiable in: nothing.
    """
    if camera.batch_shape:
        raise InputError(f"render_field: `camera` should be one, got {list(camera.batch_shape)} of them")
    if rays_per_chunk < 1:
        raise InputError(f"render_field: `rays_per_chunk` should be at least 1, got {rays_per_chunk}")
    device = device_of(field, camera)
    camera = camera.to(device)
    background_color = (field.background if background is None else background).detach().to(device)
    output = empty_output(camera, background_color)
    rows = max(1, rays_per_chunk // camera.width)
    for top in range(0, camera.height, rows):
        band = camera.crop(0, top, height=min(rows, camera.height - top), width=camera.width)
        rays = rays_of(band)
        valid = ~rays.directions.isnan().any(-1)
        rendered = march(
            lambda points, directions: query_in_chunks(field, points, directions),
            Rays(rays.origins[valid], rays.directions[valid]),
            lambda chunk: field.sample(chunk, quick=quick),
            background=background_color,
            stop_below=stop_below,
            rays_per_chunk=rays_per_chunk,
        )
        fill_rows(output, slice(top, top + band.height), valid, rendered)
    return output


def device_of(field: RenderedField | FieldFunction, camera: Camera) -> torch.device:
    """Return where a field is evaluated: a module where its parameters are, a function where the camera is."""
    return (
        field.background.device
        if isinstance(field, nn.Module) and isinstance(field, RenderedField)
        else camera.focal.device
    )


def empty_output(camera: Camera, background: Float[Tensor, "3"]) -> RenderOutput:
    """Return the output of rays that miss the field: the background at opacity 0."""
    shape = (camera.height, camera.width)
    color = background.repeat(*shape, 1)
    return RenderOutput(color, color.new_zeros(shape), color.new_zeros(shape))


def fill_rows(output: RenderOutput, rows: slice, valid: Tensor, rendered: RenderOutput) -> None:
    """Write a row of rendered rays to the pixels of some rows of an image that have `valid` rays."""
    output.color[rows][valid] = rendered.color.clamp(0, 1)
    output.opacity[rows][valid] = rendered.opacity
    output.distance[rows][valid] = rendered.distance


def query_in_chunks(
    field: Field | FieldFunction, points: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]
) -> tuple[Tensor, Tensor]:
    """Evaluate a field at many points, a chunk at a time."""
    chunks = zip(points.split(POINTS_PER_QUERY), directions.split(POINTS_PER_QUERY), strict=True)
    density, color = zip(*(field(*chunk) for chunk in chunks), strict=True)
    return torch.cat(density), torch.cat(color)


def density_in_chunks(field: Field, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Return densities at many points, a chunk at a time."""
    return torch.cat([field.density(chunk) for chunk in points.split(POINTS_PER_QUERY)])
