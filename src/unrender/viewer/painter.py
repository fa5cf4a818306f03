"""Pictures for one who looks: small while they move, finer and finer while they rest."""

import math
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from unrender.fields.protocol import RenderOutput
from unrender.geometry.camera import Camera
from unrender.geometry.rays import rays_of
from unrender.render.colormaps import distance_colors, normal_colors
from unrender.viewer.drawable import Drawable

Mode = Literal["color", "depth", "normals", "opacity"]
MOVING, RESTING = 0.12, 0.5
"""Seconds that a picture may take while its camera moves, and the first one that does not."""
REST = 0.15
"""Seconds without a move after which a camera rests; moves are told 20 times a second."""
SMALLEST = 48
"""Pixels of the longer side."""
FIRST_GUESS = 200_000.0
"""Pixels in a second."""


class Onlooker(Protocol):
    """One who looks."""

    def camera(self) -> Camera:
        """From where, and how large the finest picture should be."""

    def put(self, image: Tensor, *, is_final: bool) -> None:
        """Take a picture, RGB in [0, 1]; there is no better one if it is final."""


class Subject(NamedTuple):
    """What there is to see. Another version is drawn anew."""

    thing: Drawable
    mode: Mode = "color"
    background: tuple[float, float, float] | None = None
    version: int = 0


class Painter:
    """Paints for one onlooker, in the thread that asks for it: no two kernels ever run at once."""

    def __init__(self, onlooker: Onlooker, clock: Callable[[], float] = time.perf_counter) -> None:
        self._onlooker, self._clock = onlooker, clock
        self._camera: Camera | None = None
        self._subject: Subject | None = None
        self._moved = -math.inf
        self._side = 0
        self._bands: list[RenderOutput] = []
        self._rate = FIRST_GUESS
        self.is_done = False
        """Whether there is no better picture."""

    @property
    def is_moving(self) -> bool:
        """Whether the camera moved just now, or since the last picture, or there was none yet."""
        return self._clock() - self._moved < REST or self._has_moved(self._onlooker.camera())

    def _has_moved(self, camera: Camera) -> bool:
        return self._camera is None or not _same_view(camera, self._camera)

    def paint(self, subject: Subject) -> bool:
        """Paint the next better picture, or a band of the final one; say whether there was something to do."""
        camera = self._onlooker.camera()
        has_moved = self._has_moved(camera)
        if has_moved:
            self._moved = self._clock()
        if has_moved or subject != self._subject:
            self._camera, self._subject, self.is_done = camera, subject, False
            self._sketch(subject, camera, self._affordable(camera))
        elif self.is_done or self.is_moving:
            return False
        elif self._side < max(camera.height, camera.width):
            self._sketch(subject, camera, min(max(camera.height, camera.width), 2 * self._side))
        else:
            self._finish(subject, camera)
        return True

    def _affordable(self, camera: Camera) -> int:
        """Return the longer side of a picture that takes as long as it may."""
        pixels = self._rate * (MOVING if self.is_moving else RESTING)
        longest = max(camera.height, camera.width)
        side = round(longest * math.sqrt(pixels / (camera.height * camera.width)))
        return min(longest, max(SMALLEST, side))

    def _sketch(self, subject: Subject, camera: Camera, side: int) -> None:
        scale = side / max(camera.height, camera.width)
        small = camera.resize(*(max(1, round(n * scale)) for n in (camera.height, camera.width)))
        begin = self._clock()
        seen = subject.thing.render(small, _behind(subject), quick=True)
        self._onlooker.put(_look(seen, subject.mode, small), is_final=False)
        rate = small.height * small.width / max(self._clock() - begin, 1e-6)
        self._rate, self._side, self._bands = (self._rate + rate) / 2, side, []

    def _finish(self, subject: Subject, camera: Camera) -> None:
        """Paint a band of the final picture: one who moves on does not wait for the others."""
        top = sum(len(band.color) for band in self._bands)
        rows = min(max(1, round(self._rate * MOVING / camera.width)), camera.height - top)
        band = camera.crop(0, top, height=rows, width=camera.width)
        self._bands.append(subject.thing.render(band, _behind(subject)))
        if top + rows == camera.height:
            seen = RenderOutput(*(torch.cat(each) for each in zip(*self._bands, strict=True)))
            self._onlooker.put(_look(seen, subject.mode, camera), is_final=True)
            self._bands, self.is_done = [], True


def _behind(subject: Subject) -> Tensor | None:
    return None if subject.background is None else torch.tensor(subject.background)


def _look(seen: RenderOutput, mode: Mode, camera: Camera) -> Tensor:
    if mode == "color":
        return seen.color
    if mode == "opacity":
        return seen.opacity[..., None].expand(*seen.opacity.shape, 3)
    if mode == "normals":
        return normal_colors(seen.distance, seen.opacity, camera)
    cosine = rays_of(camera).directions @ camera.camera_from_world[2, :3]
    return distance_colors(seen.distance * cosine, seen.opacity)


def _same_view(one: Camera, other: Camera) -> bool:
    return (
        (one.height, one.width) == (other.height, other.width)
        and torch.equal(one.focal, other.focal)
        and torch.equal(one.camera_from_world, other.camera_from_world)
    )
