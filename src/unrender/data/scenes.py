"""Scenes: pictures of one thing or place with their cameras, as other programs write them."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol, get_args

from jaxtyping import Float
from torch import Tensor

from unrender.data import blender, colmap, llff, nerfstudio
from unrender.data.frames import FoundScene, Frame, Split, hold_out
from unrender.data.scene_bounds import bounds_of_cameras, bounds_of_points
from unrender.errors import FileFormatError, InputError
from unrender.geometry.points import PointCloud
from unrender.io.files import FilePath, MissingFileError


class Reader(Protocol):
    """A module that reads one format."""

    def recognises(self, place: Path) -> bool:
        """Say whether there is a scene of this format."""

    def read(self, place: Path, inverted_depth_range: float | None) -> FoundScene:
        """Read it."""


SceneFormat = Literal["auto", "blender", "nerfstudio", "colmap", "llff"]
READERS: dict[str, Reader] = {"blender": blender, "nerfstudio": nerfstudio, "colmap": colmap, "llff": llff}
"""By format, in the order in which they are looked for."""
BoundsFrom = Literal["points", "file", "cameras"]
MIN_POINTS = 10


@dataclasses.dataclass(frozen=True)
class Scene:
    """Pictures with cameras, in one world."""

    name: str
    folder: Path
    frames: tuple[Frame, ...]
    """By name."""
    bounds: Float[Tensor, "2 3"]
    """The lowest and the highest corner of the box in which the scene lies."""
    bounds_from: BoundsFrom
    """Who says so: measured points, the scene's file, or where the cameras look."""
    missing: tuple[str, ...] = ()
    """Pictures that the scene lists and that are not there."""
    without_pose: tuple[str, ...] = ()
    """Pictures that are there, and whose cameras are unknown."""
    points: PointCloud | None = None
    """What was measured when the cameras were found."""
    notes: tuple[str, ...] = ()
    """What was found odd, and how it was taken, while loading."""

    def split(self, name: Split) -> tuple[Frame, ...]:
        """Return the frames for training, validation or tests; there may be none."""
        return tuple(frame for frame in self.frames if frame.split == name)


def load_scene(
    path: FilePath, *, format: SceneFormat = "auto", inverted_depth_range: float | None = None
) -> Scene:
    """Load the cameras and the list of pictures of a scene: a folder, or its json or npy file.

    Formats: `transforms_train.json` and its like (Blender, NeRF-synthetic), `transforms.json` (nerfstudio,
    instant-ngp), a `sparse` model of COLMAP, binary or text, and `poses_bounds.npy` (LLFF). Of several in one folder,
    the first of these counts. Pictures are read when a frame is loaded; those that are absent are listed as missing.

    inverted_depth_range: the range R, in world units, of NeRF-synthetic's 8-bit depth pictures, whose values v > 0
    stand for the distance R (1 − v / 255) along the ray. They do not say it themselves: without it they are left out.
    """
    if format not in get_args(SceneFormat):
        raise InputError(
            f"load_scene: `format` should be one of {', '.join(get_args(SceneFormat))}, got {format!r}"
        )
    if inverted_depth_range is not None and not 0 < inverted_depth_range < math.inf:
        raise InputError(
            f"load_scene: `inverted_depth_range` should be positive and finite, got {inverted_depth_range}"
        )
    place = Path(path)
    if not place.exists():
        raise MissingFileError(f"{place}: there is no such file or folder; check the path")
    return _finish(_reader(place, format)(place, inverted_depth_range))


def _reader(place: Path, format: SceneFormat) -> Callable[[Path, float | None], FoundScene]:
    for name, reader in READERS.items():
        if format == name or (format == "auto" and reader.recognises(place)):
            return reader.read
    raise FileFormatError(
        f"{place}: there is no scene; one has transforms_train.json (Blender), transforms.json (nerfstudio, "
        "instant-ngp), sparse/0 (COLMAP) or poses_bounds.npy (LLFF); `unrender import` makes one from photos"
    )


def _finish(found: FoundScene) -> Scene:
    """Sort and split the frames, and bound the scene."""
    if not found.frames:
        raise FileFormatError(
            f"{found.folder}: none of the {len(found.missing)} pictures that the scene lists is there"
        )
    by_name = tuple(sorted(found.frames, key=lambda frame: frame.name))
    frames = by_name if found.has_splits else hold_out(by_name)
    bounds, source = _bounds(found)
    return Scene(
        found.name,
        found.folder,
        frames,
        bounds,
        source,
        tuple(found.missing),
        tuple(found.without_pose),
        found.points,
        tuple(found.notes),
    )


def _bounds(found: FoundScene) -> tuple[Tensor, BoundsFrom]:
    if found.bounds is not None:
        return found.bounds, "file"
    if found.points is not None and len(found.points.points) >= MIN_POINTS:
        return bounds_of_points(found.points.points), "points"
    return bounds_of_cameras([frame.camera for frame in found.frames]), "cameras"
