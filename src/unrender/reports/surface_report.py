"""The report of `unrender fit-surface`."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._wording import counted
from unrender.data.frames import evenly_spaced
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.render.fragments import rasterize
from unrender.render.mesh import render_mesh
from unrender.render.texture import Texture
from unrender.reports import figures
from unrender.reports.html import Figure, Section, write_report
from unrender.tasks.surface.measure_surface import UNLIT, SurfaceView

IMAGE_SIZE, VIEWS_IN_REPORT, COLUMNS = 400, 3, 4
NUM_FRAMES = 12
"""Images of the turntable."""
LINE_WIDTH = 0.7
"""Half the width of the lines of wireframes, in pixels."""
DETAIL = 5
"""Size of a view over that of the part whose faces are shown."""
MAX_ERROR = 0.25
"""Error shown as white."""


@dataclasses.dataclass(frozen=True)
class FittedSurface:
    """What a report shows."""

    mesh: Mesh
    texture: Texture | None
    cameras: Sequence[Camera]
    """Cameras of the turntable."""
    views: Sequence[SurfaceView]
    metrics: Mapping[str, Any]
    notes: Sequence[str]


def write_surface_report(
    path: Path, title: str, found: FittedSurface, losses: Mapping[str, Sequence[float]], how: Section
) -> None:
    """Write the report: photos, rendered views, errors and wireframes, a turntable, metrics and loss curves."""
    shown = evenly_spaced(found.views, VIEWS_IN_REPORT)
    images = [figure for view in shown for figure in _figures(found.mesh, view)]
    means = {name: value for name, value in found.metrics.items() if "/" not in name}
    sections = [
        Section("Results", summary(found.metrics, found.notes), images, columns=COLUMNS),
        Section("Surface", figures=[*_turntables(found), *_atlas(found.texture)]),
        Section("Metrics", table=means),
        Section("Loss curves", svg=figures.curves(losses, {}) if losses else ""),
        how,
    ]
    write_report(path, title, sections)


def summary(metrics: Mapping[str, Any], notes: Sequence[str]) -> str:
    """Summarize the result in sentences."""
    parts = [f"{counted(metrics['num_faces'], 'face')} in {counted(metrics['num_parts'], 'part')}"]
    if metrics.get("psnr") is not None:
        parts.append(
            f"PSNR {metrics['psnr']:.2f} dB on {counted(metrics['num_evaluated_views'], 'test view')}"
        )
    if metrics["watertight"]:
        parts.append("watertight")
    return "; ".join([*parts, *notes]) + "."


def wireframe(mesh: Mesh, camera: Camera) -> Float[Tensor, "height width 3"]:
    """Render the edges of the visible faces over a shaded mesh."""
    fragments = rasterize(mesh, camera)
    image = render_mesh(mesh.replace(vertex_colors=None), camera)[..., :3]
    covered = fragments.face_ids[..., 0] >= 0
    is_line = covered & (fragments.squared_distance[..., 0] > -(LINE_WIDTH**2))
    return torch.where(is_line[..., None], 0.25 * image, image)


def _figures(mesh: Mesh, view: SurfaceView) -> list[Figure]:
    error = ((view.rendered - view.photo).abs().mean(-1, keepdim=True) / MAX_ERROR).clamp(max=1)
    quality = f"{view.metrics['psnr']:.1f} dB" if "psnr" in view.metrics else "no surface in this view"
    return [
        Figure(f"{view.name}: photo", [_small(view.photo)]),
        Figure(f"{view.name}: rendered ({quality})", [_small(view.rendered)]),
        Figure(f"{view.name}: difference (white: {MAX_ERROR:g} or more)", [_small(error.expand(-1, -1, 3))]),
        Figure(
            f"{view.name}: faces, a part of the image", [_small(wireframe(mesh, _detail(mesh, view.camera)))]
        ),
    ]


def _detail(mesh: Mesh, camera: Camera) -> Camera:
    """Crop a view to a part around the center of the mesh, and enlarge it to the size of the images in reports."""
    low, high = mesh.vertices.aminmax(dim=0)
    x, y = (float(value) for value in camera.project((low + high)[None] / 2)[0, :2])
    side = max(1, max(camera.height, camera.width) // DETAIL)
    part = camera.crop(round(x - side / 2), round(y - side / 2), height=side, width=side)
    return part.resize(IMAGE_SIZE, IMAGE_SIZE)


def _turntables(found: FittedSurface) -> list[Figure]:
    mesh, device = found.mesh, found.mesh.vertices.device
    colored, shaded = [], []
    for camera in found.cameras:
        small = camera.resize_longest(IMAGE_SIZE).to(device)
        image = render_mesh(mesh, small, lights=UNLIT, texture=found.texture, supersampling=2)
        colored.append(figures.png(image[..., :3]))
        shaded.append(figures.png(render_mesh(mesh.replace(vertex_colors=None), small)[..., :3]))
    return [Figure("colors", colored), Figure("shape", shaded)]


def _atlas(texture: Texture | None) -> list[Figure]:
    if texture is None:
        return []
    height, width = texture.image.shape[:2]
    return [Figure(f"texture, {width} × {height}", [_small(texture.image[..., :3])])]


def _small(image: Tensor) -> bytes:
    return figures.png(figures.thumbnail(image.cpu(), IMAGE_SIZE))
