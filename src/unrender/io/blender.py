"""Scenes of Blender: transforms_train.json, transforms_val.json, transforms_test.json (NeRF-synthetic)."""

import json
import math
from pathlib import Path
from typing import Any, get_args

from unrender.errors import FileFormatError
from unrender.geometry.camera import Camera
from unrender.io.depth import DepthFile
from unrender.io.files import MissingFileError, read_bytes, reading
from unrender.io.frames import FoundScene, Frame, Split, find_picture, number, rigid_pose
from unrender.io.images import picture_size


def recognises(place: Path) -> bool:
    """Say whether one of the three files is there."""
    return place.is_dir() and any((place / f"transforms_{split}.json").is_file() for split in get_args(Split))


def read(place: Path, inverted_depth_range: float | None) -> FoundScene:
    """Read the three files, as far as they are there; poses are from camera to world, of OpenGL."""
    if not recognises(place):
        raise MissingFileError(
            f"{place}: no transforms_train.json, transforms_val.json or transforms_test.json"
        )
    frames: list[Frame] = []
    missing: list[str] = []
    notes: list[str] = []
    depth_pictures = 0
    for split in get_args(Split):
        path = place / f"transforms_{split}.json"
        if not path.is_file():
            continue
        content = read_transforms(path)
        with reading(path):
            for values in content["frames"]:
                found = _frame(content, values, place, split, inverted_depth_range)
                if isinstance(found, str):
                    missing.append(found)
                    continue
                frames.append(found)
                depth_pictures += _depth_picture(found.image_path) is not None
    if depth_pictures and inverted_depth_range is None:
        notes.append(
            f"{depth_pictures} depth pictures are left out: they do not say their range; "
            "give `inverted_depth_range`, which is 8 for NeRF-synthetic"
        )
    return FoundScene(place.resolve().name, place, frames, True, missing=missing, notes=notes)


def read_transforms(path: Path) -> dict[str, Any]:
    """Read a json file with a list of frames."""
    data = read_bytes(path)
    with reading(path):
        try:
            content = json.loads(data)
        except json.JSONDecodeError as error:
            raise FileFormatError(
                f"line {error.lineno}, column {error.colno}: broken JSON ({error.msg})"
            ) from error
        frames = content.get("frames") if isinstance(content, dict) else None
        if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
            raise FileFormatError(
                "expected a table with a list 'frames' of tables; this is another kind of json"
            )
        for i, frame in enumerate(frames):
            if not isinstance(frame.get("file_path"), str):
                raise FileFormatError(f"frame {i} has no 'file_path'")
        return content  # type: ignore[no-any-return]


def _frame(
    content: dict[str, Any], values: dict[str, Any], folder: Path, split: Split, depth_range: float | None
) -> Frame | str:
    """Make a frame, or return the name of a picture that is absent."""
    listed = values["file_path"]
    pose, _ = rigid_pose(listed, values.get("transform_matrix"))
    path = find_picture(folder, listed)
    if path is None:
        return str(listed)
    height, width = picture_size(path)
    angle = number({**content, **values}, "camera_angle_x", f"frame {listed}")
    if not 0 < angle < math.pi:
        raise FileFormatError(f"frame {listed}: 'camera_angle_x' should lie between 0 and π, got {angle}")
    focal = width / 2 / math.tan(angle / 2)
    camera = Camera.from_opengl(pose.float(), focal, height=height, width=width)
    depth = _depth_picture(path) if depth_range is not None else None
    name = path.relative_to(folder).as_posix()
    return Frame(
        name,
        camera,
        path,
        split,
        depth_file=None
        if depth is None or depth_range is None
        else DepthFile(depth, depth_range, "distance", inverted=True),
    )


def _depth_picture(path: Path) -> Path | None:
    """Find Blender's depth picture beside a picture: r_0_depth_0000.png, numbered by Blender's frame."""
    return next(iter(sorted(path.parent.glob(f"{path.stem}_depth_[0-9][0-9][0-9][0-9].png"))), None)
