"""Progressive rendering for one page: small images while the camera moves, refined while it rests."""

import math
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from unrender.geometry.camera import Camera
from unrender.geometry.rays import rays_of
from unrender.render.colormaps import distance_colors, normal_colors
from unrender.render.march import RenderOutput
from unrender.viewer.renderable import Renderable

Mode = Literal["color", "depth", "normals", "opacity"]
SECONDS_MOVING, SECONDS_RESTING = 0.12, 0.5
"""Time budget of an image while the camera moves, and of the first one after it stopped."""
REST_SECONDS = 0.15
"""Time without motion after which the camera counts as resting; the browser reports motion 20 times per second."""
MIN_SIZE = 48
"""Longer side of an image in pixels, at least."""
INITIAL_RATE = 200_000.0
"""Assumed rendering speed in pixels per second, before it is measured."""


class Client(Protocol):
    """A page that images are rendered for."""

    def camera(self) -> Camera:
        """Return its camera, with the size of the final image."""

    def put(self, image: Tensor, *, is_final: bool) -> None:
        """Show an RGB image in [0, 1]; no better one follows a final image."""


class View(NamedTuple):
    """What is rendered. A new version is rendered again from the start."""

    field: Renderable
    mode: Mode = "color"
    background: tuple[float, float, float] | None = None
    version: int = 0


class ProgressiveRenderer:
    """Renders for one client, in the thread that calls `render_next`: kernels never run concurrently."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.perf_counter) -> None:
        self._client, self._clock = client, clock
        self._camera: Camera | None = None
        self._view: View | None = None
        self._last_motion = -math.inf
        self._size = 0
        self._tiles: list[RenderOutput] = []
        self._rate = INITIAL_RATE
        self.is_done = False
        """Whether the final image has been shown."""

    @property
    def is_moving(self) -> bool:
        """Whether the camera moved recently, or since the last image."""
        return self._clock() - self._last_motion < REST_SECONDS or self._has_moved(self._client.camera())

    def _has_moved(self, camera: Camera) -> bool:
        return self._camera is None or not _same_view(camera, self._camera)

    def render_next(self, view: View) -> bool:
        """Render the next finer image, or a tile of the final one; return whether there was anything to render."""
        camera = self._client.camera()
        has_moved = self._has_moved(camera)
        if has_moved:
            self._last_motion = self._clock()
        if has_moved or view != self._view:
            self._camera, self._view, self.is_done = camera, view, False
            self._render_preview(view, camera, self._affordable_size(camera))
        elif self.is_done or self.is_moving:
            return False
        elif self._size < max(camera.height, camera.width):
            self._render_preview(view, camera, min(max(camera.height, camera.width), 2 * self._size))
        else:
            self._render_tile(view, camera)
        return True

    def _affordable_size(self, camera: Camera) -> int:
        """Return the longer side of the largest image within the time budget."""
        pixels = self._rate * (SECONDS_MOVING if self.is_moving else SECONDS_RESTING)
        longest = max(camera.height, camera.width)
        size = round(longest * math.sqrt(pixels / (camera.height * camera.width)))
        return min(longest, max(MIN_SIZE, size))

    def _render_preview(self, view: View, camera: Camera, size: int) -> None:
        small = camera.resize_longest(size)
        start = self._clock()
        output = view.field.render(small, _background(view), quick=True).to(small.focal.device)
        self._client.put(_to_image(output, view.mode, small), is_final=False)
        rate = small.height * small.width / max(self._clock() - start, 1e-6)
        self._rate, self._size, self._tiles = (self._rate + rate) / 2, size, []

    def _render_tile(self, view: View, camera: Camera) -> None:
        """Render the next rows of the final image, few enough that a moving camera is not delayed."""
        top = sum(len(tile.color) for tile in self._tiles)
        rows = min(max(1, round(self._rate * SECONDS_MOVING / camera.width)), camera.height - top)
        tile = camera.crop(0, top, height=rows, width=camera.width)
        self._tiles.append(view.field.render(tile, _background(view)).to(tile.focal.device))
        if top + rows == camera.height:
            output = RenderOutput(
                torch.cat([tile.color for tile in self._tiles]),
                torch.cat([tile.opacity for tile in self._tiles]),
                torch.cat([tile.distance for tile in self._tiles]),
            )
            self._client.put(_to_image(output, view.mode, camera), is_final=True)
            self._tiles, self.is_done = [], True


def _background(view: View) -> Tensor | None:
    return None if view.background is None else torch.tensor(view.background)


def _to_image(output: RenderOutput, mode: Mode, camera: Camera) -> Tensor:
    if mode == "color":
        return output.color
    if mode == "opacity":
        return output.opacity[..., None].expand(*output.opacity.shape, 3)
    if mode == "normals":
        return normal_colors(output.distance, output.opacity, camera)
    cosine = rays_of(camera).directions @ camera.camera_from_world[2, :3]
    return distance_colors(output.distance * cosine, output.opacity)


def _same_view(one: Camera, other: Camera) -> bool:
    return (
        (one.height, one.width) == (other.height, other.width)
        and torch.equal(one.focal, other.focal)
        and torch.equal(one.camera_from_world, other.camera_from_world)
    )
