"""Saved runs: the fitted field, the training cameras and the settings."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrender._version import __version__
from unrender.data.camera_files import load_cameras
from unrender.data.frames import Frame, frames_fingerprint
from unrender.data.scenes import load_scene
from unrender.errors import FileFormatError, InputError
from unrender.fields.gaussians import GaussianField
from unrender.geometry.world_origin import WorldOrigin
from unrender.io.files import MissingFileError, read_bytes, reading
from unrender.io.splats import SPLAT_READERS
from unrender.runs.folder import CONFIG, RUN_FORMAT
from unrender.runs.splat_views import splat_frames
from unrender.runs.video_options import Color
from unrender.training.checkpoints import CHECKPOINT
from unrender.training.saved_fields import SavedField, load_field
from unrender.workers import Workers

CAMERAS = "cameras.json"
FIELD_FILES = {"fit-volume": "volume.safetensors", "fit-nerf": "field.safetensors"}
"""File of the fitted field, by task."""


class Run(NamedTuple):
    """A saved run of `unrender fit-volume` or `unrender fit-nerf`, or a Gaussian splat file."""

    folder: Path
    """The file itself, of a Gaussian splat file."""
    field: SavedField
    field_file: Path
    background: Color | None
    """Background of rendered views; None uses the background of the field."""
    scene: str | None
    """Path of the scene it was trained on."""
    test_views: tuple[str, ...] | None
    """Names of the frames that were held out; None if the run does not list them."""

    @property
    def origin(self) -> WorldOrigin:
        """World coordinates of the origin of the frame that the field is in."""
        return self.field.scene_box.origin

    def scene_path(self, given: Path | None) -> Path:
        """Return the path of the scene: the given one, or else the recorded one; InputError if it does not exist."""
        path = given or (None if self.scene is None else Path(self.scene))
        if path is None or not path.exists():
            problem = "no scene is recorded" if path is None else f"the scene {path} does not exist"
            raise InputError(f"{self.folder}: {problem}; give its path: --scene FOLDER")
        return path

    def frames(self) -> tuple[Frame, ...]:
        """Load the cameras of the scene, in the frame of the field; the images themselves are not needed.

        For a Gaussian splat file, these are cameras saved beside it, or cameras around it; see `splat_frames`.
        """
        if isinstance(self.field, GaussianField):
            return splat_frames(self.folder, self.field)
        if (self.folder / CAMERAS).is_file():
            return load_cameras(self.folder / CAMERAS, origin=self.origin)
        if self.scene is None or not Path(self.scene).exists():
            raise InputError(
                f"{self.folder}: no {CAMERAS}, and the scene {self.scene} does not exist; "
                "give cameras: --path FILE.json"
            )
        return load_scene(self.scene, origin=self.origin).frames


def load_run(folder: Path, *, device: str | torch.device = "cpu") -> Run:
    """Load a run of `unrender fit-volume` or `unrender fit-nerf`, or a splat file, with its field on a device."""
    if folder.suffix.lower() in SPLAT_READERS and not folder.is_dir():
        return Run(folder, load_field(folder, device=device), folder, None, None, None)
    config, path = read_config(folder), folder / CONFIG
    name = FIELD_FILES.get(config["task"])
    if name is None:
        raise InputError(
            f"{folder}: a run of {config['task']} has no field; give a run of {' or '.join(FIELD_FILES)}"
        )
    if not (folder / name).is_file():
        fix = (
            f"resume it with: unrender {config['task']} --resume {folder}"
            if (folder / CHECKPOINT).is_file()
            else f"run `unrender {config['task']}` again"
        )
        raise MissingFileError(f"{folder}: no {name}: the run did not finish; {fix}")
    scene, names = config.get("scene"), config.get("test_views")
    with reading(path):
        test_views = None if names is None else tuple(str(name) for name in names)
    return Run(
        folder,
        load_field(folder / name, device=device),
        folder / name,
        _background(path, config),
        None if scene is None else str(scene),
        test_views,
    )


def require_same_run(run: Run, frames: Sequence[Frame], workers: Workers) -> None:
    """Raise InputError on all workers unless all of them have read the same field and the same cameras."""
    if workers.count == 1:  # a large file takes seconds
        return
    with run.field_file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(frames_fingerprint(frames).encode())
    workers.require_same("the run or its cameras", digest.hexdigest()[:12])


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a run: its `task`, inputs and settings; InputError for another run format."""
    path = folder / CONFIG
    if not path.is_file():
        raise MissingFileError(f"{folder}: not a run: no {CONFIG}; `unrender fit-volume SCENE` creates a run")
    data = read_bytes(path)
    with reading(path):
        config = json.loads(data)
        if not isinstance(config, dict) or not isinstance(config.get("task"), str):
            raise FileFormatError("no `task`: not written by unrender")
    if config.get("format") != RUN_FORMAT:
        raise InputError(
            f"{folder}: run format {config.get('format', 1)}, but this version reads format {RUN_FORMAT}; "
            f"run `unrender {config['task']}` again"
        )
    return config


def saved_depth_scale(folder: Path) -> float | None:
    """Return the scale with which the depth images of a run's scene were read; None if none was given.

    A Gaussian splat file has none.
    """
    if folder.is_file():
        return None
    scale = read_config(folder).get("depth_scale")
    with reading(folder / CONFIG):
        return None if scale is None else float(scale)


def as_color(background: Tensor | None) -> Color | None:
    """Convert a background color for config.json."""
    if background is None:
        return None
    red, green, blue = background.tolist()
    return red, green, blue


def _background(path: Path, config: Mapping[str, Any]) -> Color | None:
    given = config.get("background")
    with reading(path):
        if given is None:
            return None
        red, green, blue = (float(channel) for channel in given)
        if not all(0 <= channel <= 1 for channel in (red, green, blue)):
            raise FileFormatError(f"`background` should be three numbers in [0, 1], got {given}")
        return red, green, blue


def written_by(config: Mapping[str, Any]) -> str:
    """Name the version that wrote a run, and this version."""
    return f"written by unrender {config.get('unrender', '(unknown version)')}, this is {__version__}"
