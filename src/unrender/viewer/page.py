"""An open page in the browser, and the port of the server."""

import errno
import logging
import math
import os
import socket
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.camera import Camera, invert_rigid, rigid
from unrender.geometry.rotations import rotation_from_quaternion
from unrender.viewer.client_values import client_number, client_view

if TYPE_CHECKING:
    import viser

log = logging.getLogger("unrender")
MAX_PORTS = 100
"""Ports that are tried."""
IMAGE_SIZE, IMAGE_SIZES = 800, (200, 3200)
"""Longer side of the final image in pixels: default, and range."""
MOVING_QUALITY, FINAL_QUALITY = 88, 95
"""JPEG quality."""


class Page:
    """A page in the browser: its camera, and where its images go."""

    def __init__(self, client: "viser.ClientHandle", size: "viser.GuiInputHandle[int]") -> None:
        self._client, self._size = client, size

    def camera(self) -> Camera:
        """Return its camera, with the size of the final image."""
        return camera_of(self._client, self._size.value)

    def put(self, image: Tensor, *, is_final: bool) -> None:
        """Show an RGB image in [0, 1]; no better one follows a final image."""
        pixels = (image * 255).round().to(torch.uint8).cpu().numpy()
        quality = FINAL_QUALITY if is_final else MOVING_QUALITY
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Queued a .* on a closed connection"
            )  # the page may have been closed
            self._client.scene.set_background_image(pixels, "jpeg", jpeg_quality=quality)
            self._client.flush()


def camera_of(client: "viser.ClientHandle", max_size: int) -> Camera:
    """Return the camera of a page, with the pixels of the page but at most `max_size` along the longer side."""
    view = client_view(client.camera)
    scale = min(1.0, client_number(max_size, *IMAGE_SIZES, IMAGE_SIZE) / max(view.height, view.width))
    height, width = (max(1, round(side * scale)) for side in (view.height, view.width))
    rotation = rotation_from_quaternion(view.quaternion)
    pose = invert_rigid(rigid(rotation, view.position)).float()
    focal = torch.full((2,), height / 2 / math.tan(view.fov / 2))
    return Camera(focal, torch.tensor([width / 2, height / 2]), pose, height, width)


def find_port(host: str, first: int) -> int:
    """Return the first free port from `first` on, and log those in use."""
    if not 0 <= first < 2**16:
        raise InputError(f"--port {first}: must be 0 (any free port) to 65535")
    for port in range(first, min(first + MAX_PORTS, 2**16)):
        try:
            return _try_port(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                reason = error.strerror or str(error)
                raise InputError(f"--host {host} --port {port}: cannot listen: {reason}") from error
            log.warning("port %d is in use; trying the next one", port)
    raise InputError(f"--port {first}: all ports from there on are in use; give another one")


def _try_port(host: str, port: int) -> int:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        if os.name == "posix":  # as servers do: a port whose last connection was just closed is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        bound: int = probe.getsockname()[1]
        return bound
