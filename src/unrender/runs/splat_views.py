"""Cameras of Gaussian splat files: those saved beside them, or cameras placed around them."""

import dataclasses
import logging
import math
from pathlib import Path

import torch

from unrender.data.camera_files import load_cameras
from unrender.data.frames import Frame
from unrender.fields.gaussians import GaussianField
from unrender.geometry.camera import Camera
from unrender.io.files import is_file

log = logging.getLogger("unrender")
CAMERA_FILES = ("transforms.json", "cameras.json", "../../cameras.json")
"""Files of cameras relative to the folder of a splat file; the last is where 3D Gaussian splatting writes it."""
NUM_CAMERAS, SIZE, FOV_DEGREES = 60, 512, 45.0
UP = (0.0, -1.0, 0.0)
"""The camera frame of 3D Gaussian splatting has y down, and so have most splat files."""
FILL = 1.0
"""Distance from the center, relative to that at which a sphere around the bounds fills the image."""
MAX_ELEVATION = 0.85
"""Sine of the highest elevation of cameras."""


def splat_frames(path: Path, field: GaussianField) -> tuple[Frame, ...]:
    """Return the cameras saved beside a splat file, or else test views on a sphere around it that look at its center.

    Saved cameras are those of transforms.json or cameras.json in its folder, or where 3D Gaussian splatting saves them.
    """
    for name in CAMERA_FILES:
        if is_file(saved := path.parent / name):
            frames = load_cameras(saved)
            if any(frame.split == "test" for frame in frames):
                return frames
            return tuple(dataclasses.replace(frame, split="test") for frame in frames)
    log.info(
        "%s: no cameras beside it: views are placed around it, with y down; give others with --path FILE.json",
        path,
    )
    cameras = cameras_around(field)
    names = [f"around_{index:03d}.png" for index in range(NUM_CAMERAS)]
    return tuple(Frame(name, cameras[i], path.parent / name, "test") for i, name in enumerate(names))


def cameras_around(field: GaussianField) -> Camera:
    """Return cameras spread evenly on a sphere around a field, except for its poles, in a spiral from the top."""
    low, high = field.bounds().cpu()
    center, radius = (low + high) / 2, float((high - low).norm()) / 2
    index = torch.arange(NUM_CAMERAS, dtype=torch.float32)
    rise = MAX_ELEVATION * (1 - 2 * (index + 0.5) / NUM_CAMERAS)
    turn = index * math.pi * (3 - math.sqrt(5))
    flat = (1 - rise.square()).sqrt()
    directions = torch.stack([flat * turn.cos(), -rise, flat * turn.sin()], -1)
    distance = FILL * radius / math.sin(math.radians(FOV_DEGREES / 2))
    return Camera.look_at(
        center + distance * directions, center, UP, fov_degrees=FOV_DEGREES, height=SIZE, width=SIZE
    )
