"""Views of a field, rendered one by one to images: in full quality, or as fast previews with depth beside color."""

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from unrender.data.frames import Frame
from unrender.errors import InputError
from unrender.fields.protocol import Field, RenderedField
from unrender.fields.quick_look import quick_look
from unrender.fields.uniform_samples import check_interval
from unrender.geometry.camera import Camera
from unrender.io.depth_preview import depth_preview_image
from unrender.io.images import save_image
from unrender.render.march import RenderOutput
from unrender.workers import ALONE, Workers

log = logging.getLogger("unrender")
PREVIEW_SIZE, PROBE_SIZE, SECONDS_PER_PREVIEW = 400, 48, 1.0
"""Previews: longer side in pixels, at most; that of the first probe of the rendering speed; time budget of a view."""
MIN_PROBE_FRACTION = 0.1
"""Fraction of that budget a probe has to take: shorter ones measure the overhead of a call."""
MAX_SAMPLES, SURFACE_OPACITY = 4096, 0.5
"""Previews: largest number of samples per ray, and the opacity above which a distance is drawn."""


@dataclasses.dataclass(frozen=True)
class QuickRender:
    """Fast previews."""

    quick: bool = False
    """Render fast previews, about one second per view: uniform samples on each ray.
    Images show color beside mean distance (near dark, far bright, empty blue)."""
    samples: int = 64
    """With --quick: number of samples per ray, 1 to 4096."""
    near: float | None = None
    """With --quick: distance of the first sample, in world units. Default: where rays enter the field."""
    far: float | None = None
    """With --quick: distance of the last sample, in world units. Default: where rays leave the field."""

    def check(self) -> None:
        """Raise InputError for values out of range."""
        if not 1 <= self.samples <= MAX_SAMPLES:
            raise InputError(f"--samples {self.samples}: must be 1 to {MAX_SAMPLES}")
        check_interval("--near, --far", self.near, self.far)

    def render(self, field: RenderedField, camera: Camera, background: Tensor | None) -> RenderOutput:
        """Render a preview; of fields that do not sample rays, the full view."""
        if not isinstance(field, Field):
            return field.render(camera, background, quick=True)
        return quick_look(field, camera, background, near=self.near, far=self.far, num_samples=self.samples)


@dataclasses.dataclass(frozen=True)
class RenderedView:
    """A view that was rendered to a file."""

    index: int
    last_index: int
    frame: Frame
    """With the path of the rendered image."""


def render_views(
    field: RenderedField,
    frames: Sequence[Frame],
    background: tuple[float, float, float] | None,
    folder: Path,
    quick: QuickRender,
    workers: Workers = ALONE,
) -> Iterator[RenderedView]:
    """Render this worker's views to view_000.png, … in a folder, one at a time; those that are there are kept.

    Previews are rendered again: their size depends on how fast a view is.
    """
    color = None if background is None else torch.tensor(background)
    for index in workers.claims(len(frames), str(folder)):
        frame, path = frames[index], folder / f"view_{index:03d}.png"
        if quick.quick or not path.is_file():
            save_image(_image(field, frame.camera, color, quick), path)
        rendered = dataclasses.replace(frame, name=path.name, image_path=path)
        yield RenderedView(index, len(frames) - 1, rendered)


def _image(field: RenderedField, camera: Camera, background: Tensor | None, quick: QuickRender) -> Tensor:
    if not quick.quick:
        return field.render(camera, background).color
    output = quick.render(field, camera, background).to("cpu")
    return torch.cat(
        [output.color, depth_preview_image(output.distance, output.opacity > SURFACE_OPACITY, "gray")], 1
    )


def describe(view: RenderedView) -> str:
    """Return the progress line of a view."""
    return f"rendering view {view.index + 1} of {view.last_index + 1}"


def preview_size(field: RenderedField, camera: Camera, quick: QuickRender) -> int:
    """Choose the longer side of previews in pixels, at most that of the camera, so that a view takes about a second."""
    size = min(PREVIEW_SIZE, max(camera.height, camera.width))
    side = min(PROBE_SIZE, size)
    quick.render(field, camera.resize_longest(side), None)  # compiles kernels
    while True:
        probe = camera.resize_longest(side)
        start = time.perf_counter()
        quick.render(field, probe, None)
        seconds = time.perf_counter() - start
        if side == size or seconds > MIN_PROBE_FRACTION * SECONDS_PER_PREVIEW:
            break
        side = min(2 * side, size)
    affordable = int(max(probe.height, probe.width) * (SECONDS_PER_PREVIEW / seconds) ** 0.5)
    if affordable >= size:
        return size
    log.info("slow field: rendering previews of %d pixels; change it with --size", max(1, affordable))
    return max(1, affordable)
