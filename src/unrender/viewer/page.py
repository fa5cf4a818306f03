"""One open page of the browser, and the port at which there is one."""

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

if TYPE_CHECKING:
    import viser

log = logging.getLogger("unrender")
PORTS = 100
"""How many are tried."""
MOVING_QUALITY, FINAL_QUALITY = 88, 95
"""Of jpeg."""


class Page:
    """One who looks through a page of the browser."""

    def __init__(self, client: "viser.ClientHandle", finest: "viser.GuiInputHandle[int]") -> None:
        self._client, self._finest = client, finest

    def camera(self) -> Camera:
        """From where, in the shape of the page, and how large the finest picture should be."""
        return camera_of(self._client, self._finest.value)

    def put(self, image: Tensor, *, is_final: bool) -> None:
        """Take a picture, RGB in [0, 1]; there is no better one if it is final."""
        pixels = (image * 255).round().to(torch.uint8).cpu().numpy()
        quality = FINAL_QUALITY if is_final else MOVING_QUALITY
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Queued a .* on a closed connection"
            )  # it may have left just now
            self._client.scene.set_background_image(pixels, "jpeg", jpeg_quality=quality)
            self._client.flush()


def camera_of(client: "viser.ClientHandle", finest: int) -> Camera:
    """Return where a page looks from, with as many pixels as it has, but at most `finest` along the longer side."""
    seen = client.camera
    scale = min(1.0, finest / max(seen.image_height, seen.image_width))
    height, width = (max(1, round(side * scale)) for side in (seen.image_height, seen.image_width))
    rotation = rotation_from_quaternion(torch.from_numpy(seen.wxyz))
    pose = invert_rigid(rigid(rotation, torch.from_numpy(seen.position))).float()
    focal = torch.full((2,), height / 2 / math.tan(seen.fov / 2))
    return Camera(focal, torch.tensor([width / 2, height / 2]), pose, height, width)


def find_port(host: str, first: int) -> int:
    """Return the first port from `first` on that is free, and say which are not."""
    if not 0 <= first < 2**16:
        raise InputError(f"--port {first}: should be 0 (any that is free) to 65535")
    for port in range(first, min(first + PORTS, 2**16)):
        try:
            return _try_port(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                reason = error.strerror or str(error)
                raise InputError(
                    f"--host {host} --port {port}: nothing can listen there: {reason}"
                ) from error
            log.warning("port %d is in use; trying the next one", port)
    raise InputError(f"--port {first}: it and all after it are in use; give another")


def _try_port(host: str, port: int) -> int:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        if os.name == "posix":  # as servers do: a port whose last connection just closed is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        bound: int = probe.getsockname()[1]
        return bound
