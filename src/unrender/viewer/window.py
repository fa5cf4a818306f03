"""The viewer: a page in the browser with meshes, point clouds, cameras, fields and volumes."""

import contextlib
import importlib.util
import io
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, get_args

import torch

from unrender.data.frames import Frame
from unrender.data.scene_bounds import bounds_of_cameras
from unrender.errors import InputError
from unrender.fields.trainable import TrainableField
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.geometry.world_origin import ZERO, WorldOrigin, choose_origin, to_local
from unrender.render.texture import Texture
from unrender.viewer.access import Access
from unrender.viewer.client_values import client_choice, client_number
from unrender.viewer.guarded_server import start_guarded_server
from unrender.viewer.page import IMAGE_SIZE, IMAGE_SIZES, Page, camera_of, find_port
from unrender.viewer.panel import CropBox, PathPanel
from unrender.viewer.renderable import Renderable, crop
from unrender.viewer.renderer import Mode, ProgressiveRenderer, View
from unrender.viewer.scene import (
    POINT,
    Box,
    CameraFrusta,
    InitialView,
    bounds_of,
    put_cloud,
    put_mesh,
    view_around,
    view_of_all,
    view_of_first,
)

if TYPE_CHECKING:
    import viser

log = logging.getLogger("unrender")
Viewable = Mesh | PointCloud | Renderable
PATH_FILE = "camera-path.json"
"""File for camera paths, by default."""
POLL_SECONDS, IDLE_SECONDS = 0.02, 0.5
"""Seconds between checks for work: while images are being refined, and while nothing changes."""
NEAR, FAR = 1e-3, 1e3
"""Clipping planes of the browser, as multiples of the initial distance."""
TIME_FRACTION, MIN_SECONDS = 0.25, 0.3
"""During training: fraction of the time spent on rendering for resting cameras, and seconds between two images."""
TIME_FRACTION_MOVING = 0.5
"""The same while a camera moves."""
MOTION_SECONDS = 0.02
"""Seconds between checks for motion, which take time for each open page."""


class Window:
    """A viewer in the browser, served by this process.

    Rendering happens in the thread that calls `run` or `update`, not in threads of its own: training is never
    interrupted within a step, and fields need no locks.

    host: address to listen on; with "0.0.0.0" everyone on the network who knows `url`, which contains a token, can view
    the page and save camera paths.
    port: port to listen on; the next free one if it is in use.
    up: up axis of the world, unless cameras define it.
    background: of fields, RGB in [0, 1]; by default that of the field.
    path_file: file for camera paths.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        up: Sequence[float] = (0.0, 1.0, 0.0),
        background: tuple[float, float, float] | None = None,
        path_file: Path | str = PATH_FILE,
    ) -> None:
        if importlib.util.find_spec("viser") is None:
            raise InputError("the viewer needs viser: pip install 'unrender[viewer]'")
        logging.getLogger("websockets.server").setLevel(
            logging.CRITICAL
        )  # browsers open and drop connections
        self._access = Access.for_host(host)
        self._server = start_guarded_server(host, find_port(host, port), self._access, "unrender")
        self._up = torch.tensor(up, dtype=torch.float32)
        self.background = background
        """Background of fields, RGB in [0, 1]; None uses that of the field."""
        self._wake = threading.Event()
        self._renderers: dict[int, ProgressiveRenderer] = {}
        self._thing: Viewable | None = None
        self._texture: Texture | None = None
        self._crop: CropBox | None = None
        self._cropped: Renderable | None = None
        self._is_stale, self._version, self._is_paused = False, 0, False
        self._actions: dict[str, Callable[[], None]] = {}
        self._cameras: CameraFrusta | None = None
        self._next = self._next_moving = -math.inf
        self._add_controls(Path(path_file))

    @property
    def url(self) -> str:
        """Address of the page, with its token if other machines can connect."""
        return self._access.url(self._server.get_port())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._server.stop()

    def show(self, thing: Viewable, texture: Texture | None = None, *, bounds: Box | None = None) -> None:
        """Show a mesh, a point cloud, a field or a volume in place of the previous one, which must be of the same kind.

        bounds: bounding box of a field, for the crop sliders; by default estimated from the cameras.
        Meshes and point clouds with large coordinates are shown relative to an origin.
        """
        if isinstance(thing, Mesh | PointCloud):
            thing = self._localized(thing)
        elif isinstance(thing, TrainableField):
            self.set_origin(thing.scene_box.origin)
        if self._thing is None:
            self._prepare(thing, bounds)
        elif _kind(thing) != _kind(self._thing):
            raise InputError(
                f"Window.show: this window shows a {_kind(self._thing)}; open another Window for a {_kind(thing)}"
            )
        self._thing, self._texture = thing, texture
        self._version += 1
        self._touch()

    def show_cameras(
        self, frames: Sequence[Frame], *, visible: bool = True, bounds: Box | None = None
    ) -> None:
        """Show cameras as frusta, with their images if the files exist.

        The initial view shows all cameras or, unless they are `visible`, is that of the first one.
        """
        cameras = [frame.camera for frame in frames]
        if self._crop is None:
            view = view_of_all(cameras) if visible else view_of_first(cameras)
            self._set_scene(bounds_of_cameras(cameras) if bounds is None else bounds, view)
        self._cameras = shown = CameraFrusta(self._server, frames, visible)
        control = self._server.gui.add_checkbox("cameras", visible)

        @control.on_update
        def _(_: object) -> None:
            shown.set_visible(control.value)
            self._wake.set()

    def set_origin(self, origin: WorldOrigin) -> None:
        """Set the origin of the frame that cameras and fields are in, so that camera paths are in world coordinates."""
        self._path.origin = origin

    def _localized(self, thing: Mesh | PointCloud) -> Mesh | PointCloud:
        """Move a mesh or points to the origin of the first one shown, if float32 is too coarse for its coordinates."""
        points = thing.vertices if isinstance(thing, Mesh) else thing.points
        if self._thing is None and self._cameras is None:
            self.set_origin(choose_origin(points))
        if self._path.origin == ZERO or self._cameras is not None:
            return thing
        local = to_local(points, self._path.origin)
        return thing.replace(vertices=local) if isinstance(thing, Mesh) else thing.replace(points=local)

    def set_status(self, text: str) -> None:
        """Show a line of text on the page."""
        self._status.content = text

    def run(self, seconds: float = math.inf) -> None:
        """Serve the page until Ctrl-C, or for a number of seconds."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self._draw_or_wait()

    def update(self, thing: Viewable, status: str = "") -> None:
        """Show intermediate results; call it after each step of a computation.

        Returns immediately if no page is open, blocks while the page is paused, and otherwise renders for a quarter of
        the time, or half of it while a camera moves: the computation goes on whatever a page does.
        """
        self._pause.visible = True
        if self._thing is None:
            self.show(thing)
        while self._is_paused:
            self._draw_or_wait()
        start = time.perf_counter()
        if start < self._next_moving or not self._server.get_clients():
            return
        if start < self._next and not self._is_moving():
            self._next_moving = start + MOTION_SECONDS
            return
        self.show(thing)
        self.set_status(status)
        self.draw()
        end = time.perf_counter()
        self._next_moving = end + (end - start) * (1 / TIME_FRACTION_MOVING - 1)
        self._next = end + max((end - start) * (1 / TIME_FRACTION - 1), MIN_SECONDS)

    def draw(self) -> bool:
        """Render the next image of each open page; return whether there was anything to render."""
        self._act()
        if self._is_stale:
            self._update()
        renderers = self._open_pages()
        drawn = []
        if self._cropped is not None:
            mode: Mode = client_choice(self._mode.value, get_args(Mode))
            view = View(self._cropped, mode, self.background, self._version)
            drawn = [renderer.render_next(view) for renderer in renderers]
        return any(drawn) or bool(renderers and self._cameras and self._cameras.load_image())

    def _draw_or_wait(self) -> None:
        if self.draw():
            return
        is_done = all(renderer.is_done for renderer in self._renderers.values())
        self._wake.wait(IDLE_SECONDS if is_done or self._cropped is None else POLL_SECONDS)
        self._wake.clear()

    def _open_pages(self) -> list[ProgressiveRenderer]:
        """Return the renderers of all open pages."""
        clients = self._server.get_clients()
        for gone in self._renderers.keys() - clients.keys():
            del self._renderers[gone]
        for number in clients.keys() - self._renderers.keys():
            self._renderers[number] = ProgressiveRenderer(Page(clients[number], self._size))
        return list(self._renderers.values())

    def _is_moving(self) -> bool:
        return self._cropped is not None and any(renderer.is_moving for renderer in self._open_pages())

    def _update(self) -> None:
        """Apply the controls to what is shown."""
        self._is_stale = False
        thing, box = self._thing, None if self._crop is None else self._crop.box()
        if isinstance(thing, Mesh):
            put_mesh(self._server, thing, self._texture, box)
        elif isinstance(thing, PointCloud):
            size = client_number(self._point_size.value, 0.0, self._max_point_size, self._max_point_size)
            put_cloud(self._server, thing, size, box)
        elif thing is not None:
            try:
                self._cropped = thing if box is None else crop(thing, *box)
            except InputError as error:  # training continues, whatever is asked for on the page
                self._cropped = thing
                self.set_status(str(error))

    def _defer(self, name: str, action: Callable[[], None]) -> None:
        """Run the action of a control in the rendering thread: pages can only use up its fraction of the time."""
        self._actions[name] = action
        self._wake.set()

    def _act(self) -> None:
        for name in list(self._actions):
            self._actions.pop(name)()

    def _touch(self, _: object = None) -> None:
        self._is_stale = True
        self._wake.set()

    def _add_controls(self, path_file: Path) -> None:
        """Create the controls; those of fields stay hidden until one is shown."""
        gui = self._server.gui
        gui.configure_theme(show_logo=False, show_share_button=False)
        self._status = gui.add_markdown("")
        self._pause = gui.add_button("Pause", visible=False)
        self._mode = gui.add_dropdown("render", get_args(Mode), visible=False)
        self._size = gui.add_slider("max image size (pixels)", *IMAGE_SIZES, 50, IMAGE_SIZE, visible=False)
        self._path = PathPanel(
            self._server, path_file, lambda client: camera_of(client, self._size.value), self._defer
        )
        self._pause.on_click(lambda _: self._toggle())
        for control in (self._mode, self._size):
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

    def _prepare(self, thing: Viewable, bounds: Box | None) -> None:
        """Show the controls of a kind and, unless cameras define it, set the initial view."""
        self._mode.visible = self._size.visible = _kind(thing) == "field"
        bounds = bounds_of(thing) if bounds is None else bounds
        if isinstance(thing, PointCloud):
            self._max_point_size = float((bounds[1] - bounds[0]).norm()) or 1.0 / POINT
            size = POINT * self._max_point_size
            self._point_size = self._server.gui.add_number("point size", size, min=0.0, step=size / 4)
            self._point_size.on_update(self._touch)
        if self._crop is None:
            self._set_scene(bounds, view_around(bounds, self._up))

    def _set_scene(self, bounds: Box, view: InitialView) -> None:
        """Set the bounds of the scene and the initial view."""
        self._crop = CropBox(self._server, bounds, self._touch, self._defer)
        distance = float((view.target - view.eye).norm())
        self._server.scene.set_up_direction(view.up.numpy())
        start = self._server.initial_camera
        start.position, start.look_at, start.up = (t.double().numpy() for t in view[:3])
        start.fov = math.radians(view.fov_degrees)
        start.near, start.far = NEAR * distance, FAR * distance


def _kind(thing: Viewable) -> str:
    return "mesh" if isinstance(thing, Mesh) else "cloud" if isinstance(thing, PointCloud) else "field"
