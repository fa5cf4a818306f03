"""A page in the browser that shows meshes, points, cameras, fields and volumes, and what a training does to them."""

import contextlib
import io
import logging
import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, get_args

import torch

from unrender.data.frames import Frame
from unrender.data.scene_bounds import bounds_of_cameras
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.render.texture import Texture
from unrender.viewer.drawable import Drawable, crop
from unrender.viewer.page import Page, camera_of, find_port
from unrender.viewer.painter import Mode, Painter, Subject
from unrender.viewer.panel import CropBox, PathPanel
from unrender.viewer.stage import (
    POINT,
    Box,
    Home,
    PhotoCameras,
    bounds_of,
    home_around,
    home_beside,
    home_of,
    put_cloud,
    put_mesh,
)

if TYPE_CHECKING:
    import viser

log = logging.getLogger("unrender")
Thing = Mesh | PointCloud | Drawable
FINEST, SIDES = 800, (200, 3200)
"""Pixels of the longer side of the finest pictures: by default, fewest and most."""
NAP, LONG_NAP = 0.02, 0.5
"""Seconds between looks at whether there is something to do, while there may soon be, and at most."""
NEAR, FAR = 1e-3, 1e3
"""Between which distances the browser draws, as multiples of that from which one begins to look."""
SHARE, SHORTEST = 0.25, 0.3
"""Of the time, while a training runs and nobody moves; and seconds between its pictures, at least."""


class Window:
    """A page in the browser, and what it shows.

    All is drawn by the thread that calls `stay` or `keep_up`, not by threads of its own: a training is never disturbed
    in the midst of a step, and fields need no locks.

    host: who can reach the page; "0.0.0.0" is everyone in the network, who can then also save camera paths.
    port: if it is in use, the next free one is taken, with a word in the log.
    up: what is up in the world, where no cameras tell.
    path_file: where camera paths are saved.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        up: Sequence[float] = (0.0, 1.0, 0.0),
        background: tuple[float, float, float] | None = None,
        path_file: Path | str = "camera-path.json",
    ) -> None:
        try:
            import viser
        except ImportError as error:
            raise InputError("the viewer needs viser: pip install 'unrender[viewer]'") from error

        logging.getLogger("websockets.server").setLevel(
            logging.CRITICAL
        )  # browsers try connections, and drop them
        with contextlib.redirect_stdout(io.StringIO()):  # it has words of its own, `verbose` or not
            self._server = viser.ViserServer(host, find_port(host, port), label="unrender", verbose=False)
        self._host, self._up = host, torch.tensor(up, dtype=torch.float32)
        self.background = background
        """Behind fields, RGB in [0, 1]; None for what they learned."""
        self._wake = threading.Event()
        self._painters: dict[int, Painter] = {}
        self._thing: Thing | None = None
        self._texture: Texture | None = None
        self._crop: CropBox | None = None
        self._part: Drawable | None = None
        self._is_stale, self._version, self._is_paused = False, 0, False
        self._cameras: PhotoCameras | None = None
        self._next = -math.inf
        self._lay_out(Path(path_file))

    @property
    def url(self) -> str:
        """Where to look."""
        host = "localhost" if self._host in ("0.0.0.0", "127.0.0.1", "::", "") else self._host
        return f"http://{host}:{self._server.get_port()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the page down."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._server.stop()

    def show(self, thing: Thing, texture: Texture | None = None, *, bounds: Box | None = None) -> None:
        """Show a mesh, points, a field or a volume instead of what was shown; anew, if it is the same one.

        bounds: the box in which a field lies, for the sliders; by default where the cameras look. A window shows things
        of one kind only.
        """
        if self._thing is None:
            self._prepare(thing, bounds)
        elif _kind(thing) != _kind(self._thing):
            raise InputError(
                f"Window.show: this one shows a {_kind(self._thing)}; open another Window for a {_kind(thing)}"
            )
        self._thing, self._texture = thing, texture
        self._version += 1
        self._touch()

    def show_cameras(
        self, frames: Sequence[Frame], *, visible: bool = True, bounds: Box | None = None
    ) -> None:
        """Show where photos were taken, and the photos, where they are there.

        One begins to look from where all cameras can be seen or, if they are not to be `visible`, from the first one.
        """
        cameras = [frame.camera for frame in frames]
        if self._crop is None:
            home = home_beside(cameras) if visible else home_of(cameras)
            self._set_out(bounds_of_cameras(cameras) if bounds is None else bounds, home)
        self._cameras = shown = PhotoCameras(self._server, frames, visible)
        control = self._server.gui.add_checkbox("cameras", visible)

        @control.on_update
        def _(_: object) -> None:
            shown.set_visible(control.value)
            self._wake.set()

    def say(self, words: str) -> None:
        """Write a line on the page."""
        self._words.content = words

    def stay(self, seconds: float = math.inf) -> None:
        """Show all this until Ctrl-C, or for so long."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self._draw_or_wait()

    def keep_up(self, thing: Thing, words: str = "") -> None:
        """Show how far something got, to those who look; to be called again and again by those who work on it.

        Returns at once if nobody looks, waits while one moves or has pressed pause, and else draws for a quarter of
        the time.
        """
        self._pause.visible = True
        if self._thing is None:
            self.show(thing)
        while self._is_paused or self._is_moving():
            self._draw_or_wait()
        begin = time.perf_counter()
        if begin < self._next or not self._server.get_clients():
            return
        self.show(thing)
        self.say(words)
        self.draw()
        end = time.perf_counter()
        self._next = end + max((end - begin) * (1 / SHARE - 1), SHORTEST)

    def draw(self) -> bool:
        """Draw what is due, one picture for each page that is open; say whether there was one."""
        if self._is_stale:
            self._update()
        painters = self._open_pages()
        drawn = []
        if self._part is not None:
            subject = Subject(self._part, self._mode.value, self.background, self._version)
            drawn = [painter.paint(subject) for painter in painters]
        return any(drawn) or bool(painters and self._cameras and self._cameras.load_photo())

    def _draw_or_wait(self) -> None:
        if self.draw():
            return
        is_done = all(painter.is_done for painter in self._painters.values())
        self._wake.wait(LONG_NAP if is_done or self._part is None else NAP)
        self._wake.clear()

    def _open_pages(self) -> list[Painter]:
        """Return the painters of all pages that are open."""
        clients = self._server.get_clients()
        for gone in self._painters.keys() - clients.keys():
            del self._painters[gone]
        for number in clients.keys() - self._painters.keys():
            self._painters[number] = Painter(Page(clients[number], self._finest))
        return list(self._painters.values())

    def _is_moving(self) -> bool:
        return self._part is not None and any(painter.is_moving for painter in self._open_pages())

    def _update(self) -> None:
        """Bring what is shown up to date with the controls."""
        self._is_stale = False
        thing, box = self._thing, None if self._crop is None else self._crop.box()
        if isinstance(thing, Mesh):
            put_mesh(self._server, thing, self._texture, box)
        elif isinstance(thing, PointCloud):
            put_cloud(self._server, thing, self._point_size.value, box)
        elif thing is not None:
            try:
                self._part = thing if box is None else crop(thing, *box)
            except InputError as error:  # a training goes on, whatever is asked for on the page
                self._part = thing
                self.say(str(error))

    def _touch(self, _: object = None) -> None:
        self._is_stale = True
        self._wake.set()

    def _lay_out(self, path_file: Path) -> None:
        """Make the controls, and hide those that what is shown does not need."""
        gui = self._server.gui
        gui.configure_theme(show_logo=False, show_share_button=False)
        self._words = gui.add_markdown("")
        self._pause = gui.add_button("Pause", visible=False)
        self._mode = gui.add_dropdown("show", get_args(Mode), visible=False)
        self._finest = gui.add_slider("finest side, pixels", *SIDES, 50, FINEST, visible=False)
        self._path = PathPanel(self._server, path_file, lambda client: camera_of(client, self._finest.value))
        self._pause.on_click(lambda _: self._toggle())
        for control in (self._mode, self._finest):
            control.on_update(lambda _: self._wake.set())

        @self._server.on_client_connect
        async def _(client: "viser.ClientHandle") -> None:
            @client.camera.on_update
            async def _(_: object) -> None:
                self._wake.set()

            self._wake.set()

    def _toggle(self) -> None:
        self._is_paused = not self._is_paused
        self._pause.label = "Resume" if self._is_paused else "Pause"
        self._wake.set()

    def _prepare(self, thing: Thing, bounds: Box | None) -> None:
        """Give the first thing its controls and, if no cameras say it, a place to look from."""
        self._mode.visible = self._finest.visible = _kind(thing) == "field"
        bounds = bounds_of(thing) if bounds is None else bounds
        if isinstance(thing, PointCloud):
            size = POINT * float((bounds[1] - bounds[0]).norm()) or 1.0
            self._point_size = self._server.gui.add_number("point size", size, min=0.0, step=size / 4)
            self._point_size.on_update(self._touch)
        if self._crop is None:
            self._set_out(bounds, home_around(bounds, self._up))

    def _set_out(self, bounds: Box, home: Home) -> None:
        """Say where what there is to see lies, and where to begin to look from."""
        self._crop = CropBox(self._server, bounds, self._touch)
        distance = float((home.target - home.eye).norm())
        self._server.scene.set_up_direction(home.up.numpy())
        start = self._server.initial_camera
        start.position, start.look_at, start.up = (t.double().numpy() for t in home[:3])
        start.fov = math.radians(home.fov_degrees)
        start.near, start.far = NEAR * distance, FAR * distance


def _kind(thing: Thing) -> str:
    return "mesh" if isinstance(thing, Mesh) else "cloud" if isinstance(thing, PointCloud) else "field"
