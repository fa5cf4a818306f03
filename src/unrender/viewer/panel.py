"""Control panels: a crop box, and a camera path."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._wording import counted
from unrender.data.camera_files import save_cameras
from unrender.data.frames import Frame
from unrender.errors import UnrenderError
from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import interpolated_path
from unrender.geometry.world_origin import ZERO
from unrender.viewer.client_values import (
    MAX_COORDINATE,
    client_number,
    client_range,
    client_vector,
    client_view,
)
from unrender.viewer.scene import ORANGE, Box, put_camera

if TYPE_CHECKING:
    import viser

STEPS = 200
"""Positions of a slider, about."""
NUM_VIEWS = 60
"""Views of a camera path, by default."""
MAX_VIEWS, MAX_KEYS = 10_000, 1_000
"""Views of a camera path, and key views, at most."""


Defer = Callable[[str, Callable[[], None]], None]
"""Runs an action later in the rendering thread, in its fraction of the time; only the last one of each name."""


class CropBox:
    """Sliders for the sides of a box. A slider at its end does not crop: the bounds may be estimates."""

    def __init__(
        self, server: "viser.ViserServer", bounds: Box, on_change: Callable[[], None], defer: Defer
    ) -> None:
        lows, highs, step = _ends(bounds)
        self._server, self._on_change, self._limits = server, on_change, (lows, highs)
        self._first, self._last = torch.tensor(lows) + step / 2, torch.tensor(highs) - step / 2
        with server.gui.add_folder("Crop", expand_by_default=False):
            self._is_on = server.gui.add_checkbox("crop", False)
            self._sliders = [
                server.gui.add_multi_slider(axis, low, high, step, (low, high))
                for axis, low, high in zip("xyz", lows, highs, strict=True)
            ]
        self._is_on.on_update(lambda _: defer("crop", self._changed))
        for slider in self._sliders:
            slider.on_update(lambda _: defer("crop", self._changed))

    def box(self) -> Box | None:
        """Return the box; None if cropping is off."""
        if not self._is_on.value:
            return None
        low, high = self._values().T
        return torch.stack(
            [low.where(low > self._first, -torch.inf), high.where(high < self._last, torch.inf)]
        )

    def _values(self) -> Float[Tensor, "3 2"]:
        limits = zip(self._sliders, *self._limits, strict=True)
        return torch.tensor([client_range(slider.value, low, high) for slider, low, high in limits])

    def _changed(self) -> None:
        corners = torch.cartesian_prod(*self._values())
        edges = [(a, b) for a in range(8) for b in range(8) if a < b and (a ^ b) in (1, 2, 4)]
        self._server.scene.add_line_segments(
            "/crop",
            corners[torch.tensor(edges)].numpy(),
            ORANGE,
            thickness=2.0,
            thickness_units="screen",
            visible=self._is_on.value,
        )
        self._on_change()


def _ends(bounds: Box) -> tuple[list[float], list[float], float]:
    """Return rounded ends of the sliders and their step; the ends differ even if the bounds are flat."""
    low, high = bounds.double().unbind()
    step = 10.0 ** math.floor(math.log10(float((high - low).amax().clamp(min=1e-6)) / STEPS * 5))
    first, last = (low / step).floor() - 1, (high / step).ceil() + 1
    return *([round(float(n) * step, 9) for n in end] for end in (first, last)), step  # type: ignore[return-value]


class PathPanel:
    """Collects key views, and saves a smooth path through them for `unrender render --path`."""

    def __init__(
        self,
        server: "viser.ViserServer",
        file: Path,
        camera_of: Callable[["viser.ClientHandle"], Camera],
        defer: Defer,
    ) -> None:
        self._server, self._file, self._camera_of = server, file, camera_of
        self.origin = ZERO
        """World coordinates of the origin of the page; the file is in world coordinates."""
        self._keys: list[Camera] = []
        self._asked = False
        with server.gui.add_folder("Camera path", expand_by_default=False):
            self._status = server.gui.add_markdown("no key views")
            add, clear = server.gui.add_button("Add key view"), server.gui.add_button("Clear")
            self._count = server.gui.add_number("views", NUM_VIEWS, min=1, max=MAX_VIEWS, step=1)
            save, self._replace = (
                server.gui.add_button("Save"),
                server.gui.add_button("Replace", visible=False),
            )
        add.on_click(lambda event: defer("add", lambda: self._add(event.client)))
        clear.on_click(lambda _: defer("clear", self._clear))
        save.on_click(lambda _: defer("save", self._save))
        self._replace.on_click(lambda _: defer("replace", lambda: self._save(replace=self._asked)))

    def _add(self, client: "viser.ClientHandle | None") -> None:
        if client is None:
            return
        if len(self._keys) >= MAX_KEYS:
            self._status.content = f"{MAX_KEYS} key views are the most: remove some with Clear"
            return
        camera = self._camera_of(client)
        target = client_vector(client.camera.look_at, 3, MAX_COORDINATE)
        size = 0.1 * float((target - client_view(client.camera).position).norm())
        put_camera(self._server, f"/path/{len(self._keys)}", camera, size, ORANGE)
        self._keys.append(camera)
        self._status.content = counted(len(self._keys), "key view")

    def _clear(self) -> None:
        self._keys.clear()
        self._server.scene.remove_by_name("/path")
        self._status.content = "no key views"

    def _save(self, *, replace: bool = False) -> None:
        if self._keys and self._file.exists() and not replace:
            self._ask(True)
            self._status.content = f"{self._file} exists already: press Replace to replace it"
            return
        self._ask(False)
        try:
            count = int(client_number(self._count.value, 1, MAX_VIEWS, NUM_VIEWS))
            path = interpolated_path(self._keys, count)
            names = [f"view_{index:03d}.png" for index in range(*path.batch_shape)]
            folder = self._file.resolve().parent
            frames = [Frame(name, path[i], folder / name, "test") for i, name in enumerate(names)]
            save_cameras(frames, self._file, origin=self.origin)
        except (UnrenderError, OSError) as error:
            self._status.content = (
                "nothing to save: add key views first" if not self._keys else f"not saved: {error}"
            )
            return
        self._status.content = f"saved; render it with `unrender render RUN --path {self._file}`"

    def _ask(self, whether: bool) -> None:
        """Offer to replace the file, or no longer."""
        self._asked = self._replace.visible = whether
