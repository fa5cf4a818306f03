"""Scenes: images with known cameras, in the formats of nerfstudio, Blender, COLMAP, LLFF, TUM and BOP."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.data import blender, bop, colmap, llff, nerfstudio, tum
from unrender.data.depth_units import with_depth_scale
from unrender.data.frames import Frame, ParsedScene, Split, split_frames
from unrender.data.listed_files import describe_unused
from unrender.data.other_formats import describe_unread
from unrender.data.scene_bounds import bounds_of_cameras, bounds_of_points
from unrender.errors import FileFormatError, InputError
from unrender.geometry.points import PointCloud
from unrender.geometry.world_origin import ZERO, WorldOrigin, choose_origin
from unrender.io.files import FilePath, MissingFileError


class Reader(Protocol):
    """A module that reads one format."""

    def recognizes(self, path: Path) -> bool:
        """Return whether there is a scene of this format."""

    def read(self, path: Path, inverted_depth_range: float | None) -> ParsedScene:
        """Read the scene."""


SceneFormat = Literal["auto", "blender", "nerfstudio", "colmap", "llff", "tum", "bop"]
READERS: dict[str, Reader] = {
    "blender": blender,
    "nerfstudio": nerfstudio,
    "colmap": colmap,
    "llff": llff,
    "tum": tum,
    "bop": bop,
}
"""Readers by format, in the order in which they are tried."""
BoundsFrom = Literal["points", "file", "cameras"]
MIN_POINTS = 10


@dataclasses.dataclass(frozen=True)
class Scene:
    """Images with cameras in a common frame: that of the files or, for large coordinates, one relative to `origin`."""

    name: str
    folder: Path
    frames: tuple[Frame, ...]
    """Sorted by name."""
    bounds: Float[Tensor, "2 3"]
    """Bounding box of the scene: its lowest and highest corner."""
    bounds_from: BoundsFrom
    """Source of the bounds: 3D points, the scene's file, or the cameras."""
    missing: tuple[str, ...] = ()
    """Listed images that do not exist."""
    without_pose: tuple[str, ...] = ()
    """Images without a camera."""
    points: PointCloud | None = None
    """3D points of the reconstruction."""
    notes: tuple[str, ...] = ()
    """Warnings from loading, and how each was handled."""
    origin: WorldOrigin = ZERO
    """World coordinates of the origin of cameras, points and bounds; zero unless float32 is too coarse for them."""

    def split(self, name: Split) -> tuple[Frame, ...]:
        """Return the frames of a split; there may be none."""
        return tuple(frame for frame in self.frames if frame.split == name)


def load_scene(
    path: FilePath,
    *,
    format: SceneFormat = "auto",
    inverted_depth_range: float | None = None,
    origin: WorldOrigin | None = None,
    depth_scale: float | None = None,
) -> Scene:
    """Load the cameras and the list of images of a scene: a folder, or its json or npy file.

    Formats: `transforms_train.json` and its like (Blender, NeRF-synthetic), `transforms.json` (nerfstudio,
    instant-ngp), a `sparse` model of COLMAP, binary or text, `poses_bounds.npy` (LLFF), RGB-D sequences (TUM), and
    `scene_camera.json` (BOP). Of several in one folder, the first of these is loaded. Images are read when a frame is
    loaded; those that do not exist are listed as missing.

    inverted_depth_range: the range R, in world units, of NeRF-synthetic's 8-bit depth images, whose values v > 0
    encode the distance R (1 − v / 255) along the ray. Without it, these images are ignored.
    depth_scale: world units per unit of the depth images. By default nerfstudio's thousandths or instant-ngp's
    `integer_depth_scale`; if these do not fit the points or cameras of the scene, another usual one, with a note.
    origin: world coordinates of the origin to which cameras and points are moved. By default it is zero, or near the
    cameras if their coordinates are so large that float32 is too coarse, such as UTM.
    """
    if format not in get_args(SceneFormat):
        raise InputError(
            f"load_scene: `format` should be one of {', '.join(get_args(SceneFormat))}, got {format!r}"
        )
    if inverted_depth_range is not None and not 0 < inverted_depth_range < math.inf:
        raise InputError(
            f"load_scene: `inverted_depth_range` should be positive and finite, got {inverted_depth_range}"
        )
    if depth_scale is not None and not 0 < depth_scale < math.inf:
        raise InputError(f"load_scene: `depth_scale` should be positive and finite, got {depth_scale}")
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder; check the path")
    return _finish(_reader(path, format)(path, inverted_depth_range), origin, depth_scale)


def _reader(path: Path, format: SceneFormat) -> Callable[[Path, float | None], ParsedScene]:
    for name, reader in READERS.items():
        if format == name or (format == "auto" and reader.recognizes(path)):
            return reader.read
    unread = describe_unread(path)
    if unread is not None:
        raise FileFormatError(f"{path}: no scene found: this looks like {unread}")
    raise FileFormatError(
        f"{path}: no scene found; expected transforms_train.json (Blender), transforms.json (nerfstudio, "
        "instant-ngp), sparse/0 (COLMAP) or poses_bounds.npy (LLFF); `unrender import` creates one from photos"
    )


def _finish(found: ParsedScene, origin: WorldOrigin | None, depth_scale: float | None) -> Scene:
    """Move the scene to its origin, check the unit of depth images, split the frames, and compute the bounds."""
    if not found.frames:
        raise FileFormatError(f"{found.folder}: {_why_empty(found)}")
    if origin is None:
        origin = choose_origin(torch.stack([frame.camera.position for frame in found.frames]))
    found = with_depth_scale(found.to_local(origin), depth_scale)
    by_name = tuple(sorted(found.frames, key=lambda frame: frame.name))
    frames = by_name if found.has_splits else split_frames(by_name)
    bounds, source = _bounds(found)
    files = [file for frame in frames for file in (frame.mask_path, frame.ignored_path)]
    files += [frame.depth_file.path for frame in frames if frame.depth_file is not None]
    used = [file for file in files if file is not None]
    return Scene(
        found.name,
        found.folder,
        frames,
        bounds,
        source,
        tuple(found.missing),
        tuple(found.without_pose),
        found.points,
        (*found.notes, *describe_unused(found.folder, used)),
        origin,
    )


def _why_empty(found: ParsedScene) -> str:
    if found.missing:
        notes = "".join(f"; {note}" for note in found.notes if "did you mean" in note)
        first = found.folder / found.missing[0]
        return f"none of the {len(found.missing)} listed images exists; the first is {first}{notes}"
    if found.without_pose:
        count = len(found.without_pose)
        return f"none of the {count} images has a pose; the first is {found.without_pose[0]}"
    return "the scene lists no images"


def _bounds(found: ParsedScene) -> tuple[Tensor, BoundsFrom]:
    if found.bounds is not None:
        return found.bounds, "file"
    if found.points is not None and len(found.points.points) >= MIN_POINTS:
        return bounds_of_points(found.points.points), "points"
    return bounds_of_cameras([frame.camera for frame in found.frames]), "cameras"
