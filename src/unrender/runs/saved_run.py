"""Runs on disk: what a command learned, and from which photos."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from unrender._version import __version__
from unrender.data.camera_files import load_cameras
from unrender.data.frames import Frame
from unrender.data.scenes import load_scene
from unrender.errors import FileFormatError, InputError
from unrender.fields.protocol import RadianceField
from unrender.fields.voxels import SparseVoxels
from unrender.io.files import MissingFileError, read_bytes, reading
from unrender.runs.video_options import Color
from unrender.training.checkpoints import CHECKPOINT
from unrender.training.saved_fields import load_field

CONFIG, CAMERAS = "config.json", "cameras.json"
FIELD_FILES = {"fit-volume": "volume.safetensors", "fit-nerf": "field.safetensors"}
"""What a run of each task learned."""


class Run(NamedTuple):
    """What a run left that learned a field."""

    folder: Path
    field: RadianceField
    field_file: Path
    background: Color | None
    """What is behind its results; None for what was learned."""
    scene: str | None
    """Where the photos were."""
    held_out: tuple[str, ...] | None
    """Names of the frames that were not learned from; None where the run does not say."""

    def frames(self) -> tuple[Frame, ...]:
        """Load where the photos stood; the photos need not be there any more."""
        if (self.folder / CAMERAS).is_file():
            return load_cameras(self.folder / CAMERAS)
        if self.scene is None or not Path(self.scene).exists():
            raise InputError(
                f"{self.folder}: it has no {CAMERAS}, and its scene {self.scene} is gone; "
                "give cameras: --path FILE.json"
            )
        return load_scene(self.scene).frames


def load_run(folder: Path) -> Run:
    """Load what `unrender fit-volume` or `unrender fit-nerf` wrote."""
    config, place = read_config(folder), folder / CONFIG
    name = FIELD_FILES.get(config["task"])
    if name is None:
        raise InputError(
            f"{folder}: a run of {config['task']}, which learns no field; give one of {' or '.join(FIELD_FILES)}"
        )
    if not (folder / name).is_file():
        way = (
            f"continue it: unrender fit-nerf {config.get('scene')} --resume {folder}"
            if (folder / CHECKPOINT).is_file()
            else f"run {config['task']} again"
        )
        raise MissingFileError(f"{folder}: the run has no {name}: it did not come to an end; {way}")
    scene, held_out = config.get("scene"), config.get("held_out")
    with reading(place):
        names = None if held_out is None else tuple(str(name) for name in held_out)
    return Run(
        folder,
        load_field(folder / name),
        folder / name,
        _background(place, config),
        None if scene is None else str(scene),
        names,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Read what a run was asked to do: its `task`, its inputs, the version of unrender."""
    place = folder / CONFIG
    if not place.is_file():
        raise MissingFileError(f"{folder}: no run: it has no {CONFIG}; `unrender fit-volume SCENE` makes one")
    data = read_bytes(place)
    with reading(place):
        config = json.loads(data)
        if not isinstance(config, dict) or not isinstance(config.get("task"), str):
            raise FileFormatError("it does not say what the run did: unrender did not write it")
    return config


def as_color(behind: Tensor | None) -> Color | None:
    """Write a background as a run's config has it."""
    if behind is None:
        return None
    red, green, blue = behind.tolist()
    return red, green, blue


def _background(place: Path, config: Mapping[str, Any]) -> Color | None:
    given = config.get("background")
    with reading(place):
        if given is None:
            return None
        red, green, blue = (float(channel) for channel in given)
        return red, green, blue


def describe_field(field: RadianceField) -> dict[str, Any]:
    """Say how large a field is, in figures."""
    if isinstance(field, SparseVoxels):
        return {
            "num_voxels": field.table.num_voxels,
            "voxel_size": field.voxel_size,
            "longest_side": max(field.table.shape),
            "degree": field.degree,
        }
    parameters = getattr(field, "parameters", None)  # of those fields that are modules
    return {} if parameters is None else {"num_parameters": sum(p.numel() for p in parameters())}


def version_words(config: Mapping[str, Any]) -> str:
    """Say which version wrote a run, and which this is."""
    return f"unrender {config.get('unrender', 'of an unknown version')} wrote it, this is {__version__}"
