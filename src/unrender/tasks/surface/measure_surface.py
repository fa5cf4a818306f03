"""Quality of a mesh fitted to photos: rendered views compared with photos, and topology."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.data.frames import Frame
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh, surface_area
from unrender.geometry.topology import connected_components, genus, is_manifold, is_watertight
from unrender.losses.images import SSIM_WINDOW, match_exposure, psnr, ssim
from unrender.render.lights import AmbientLight
from unrender.render.mesh import render_mesh
from unrender.render.texture import Texture
from unrender.tasks.surface.photo_views import load_photo_view

SUPERSAMPLING = 2
UNLIT = (AmbientLight(1.0),)
"""Colors are rendered as they are in the photos, with their shading."""


@dataclasses.dataclass(frozen=True)
class SurfaceView:
    """A rendered view of a mesh beside the photo."""

    index: int
    last_index: int
    name: str
    camera: Camera
    """Without lens distortion."""
    photo: Float[Tensor, "height width 3"]
    """On white; of opaque photos, white where there is no surface."""
    rendered: Float[Tensor, "height width 3"]
    metrics: dict[str, float]


@torch.no_grad()
def compare_views(
    mesh: Mesh, frames: Sequence[Frame], texture: Texture | None = None, *, size: int | None = None
) -> Iterator[SurfaceView]:
    """Render a mesh at the cameras of frames, and compare it with their photos.

    Photos with alpha are composited on white. Of opaque photos, only the pixels that the surface covers are compared,
    after scaling each channel to match: the exposure of photos that were not trained on is unknown. `coverage` is the
    fraction of the pixels that the surface covers; if it covers none of an opaque photo, there is no `psnr`. Lens
    distortion is removed.
    """
    device = mesh.vertices.device
    for index, frame in enumerate(frames):
        view = load_photo_view(frame, size)
        camera = view.camera.to(device)
        image = render_mesh(
            mesh, camera, lights=UNLIT, texture=texture, background=None, supersampling=SUPERSAMPLING
        )
        color, alpha = image[..., :3], image[..., 3:]
        rendered = (color + 1 - alpha).clamp(0, 1)
        photo, usable = view.premultiplied(device), view.usable(device)
        metrics = {"coverage": float(alpha.mean())}
        if view.alpha is not None:
            photo = (photo + 1 - view.coverage(device)[..., None]).clamp(0, 1)
            metrics["psnr"] = psnr(rendered, photo, None if bool(usable.all()) else usable)
            if min(photo.shape[:2]) >= SSIM_WINDOW:
                metrics["ssim"] = ssim(rendered, photo)
        else:
            inside = usable & (alpha[..., 0] == 1)
            rendered = match_exposure(rendered, photo, inside).clamp(0, 1)
            if bool(inside.any()):
                metrics["psnr"] = psnr(rendered, photo, inside)
            rendered, photo = (torch.where(inside[..., None], x, 1) for x in (rendered, photo))
        yield SurfaceView(index, len(frames) - 1, frame.name, camera, photo.cpu(), rendered.cpu(), metrics)


def measure_shape(mesh: Mesh) -> dict[str, Any]:
    """Return the number of faces, vertices and connected parts of a mesh, its area, and what is closed."""
    closed, manifold = is_watertight(mesh), is_manifold(mesh)
    labels = connected_components(mesh.faces, len(mesh.vertices))[mesh.faces[:, 0].long()]
    return {
        "num_faces": len(mesh.faces),
        "num_vertices": len(mesh.vertices),
        "num_parts": len(labels.unique()),
        "surface_area": float(surface_area(mesh)),
        "watertight": closed,
        "manifold": manifold,
        "genus": genus(mesh) if closed and manifold else None,
    }
