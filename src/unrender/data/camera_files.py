"""Files of cameras without images: those of a run, and camera paths of other programs."""

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unrender.data.frames import (
    Frame,
    check_intrinsics,
    frame_to_local,
    number,
    place_camera,
    rigid_pose,
)
from unrender.data.listed_files import find_image, normalized_name
from unrender.data.nerfstudio import camera_from_table, read_splits, read_transforms
from unrender.data.save_transforms import save_transforms
from unrender.errors import FileFormatError
from unrender.geometry.camera import Camera
from unrender.geometry.world_origin import ZERO, WorldOrigin, choose_origin
from unrender.io.files import FilePath, read_bytes, reading

log = logging.getLogger("unrender")
MAX_PIXELS = 2**27
"""Size limit of images, in pixels: files can contain any number."""


def save_cameras(frames: Sequence[Frame], path: FilePath, *, origin: WorldOrigin = ZERO) -> None:
    """Save the cameras and splits of frames as a transforms.json, without their masks and depth.

    The frames are relative to `origin`, the file is in world coordinates.

    The format has no lens with a denominator: such a lens is dropped with a warning.
    """
    save_transforms(
        [dataclasses.replace(_without_rational_lens(f), mask_path=None, depth_file=None) for f in frames],
        path,
        origin=origin,
    )


def load_cameras(path: FilePath, *, origin: WorldOrigin = ZERO) -> tuple[Frame, ...]:
    """Load the cameras of a transforms.json, a camera path of nerfstudio's viewer, or a cameras.json of splatting.

    The last is what 3D Gaussian splatting writes beside its results. Images need not exist. A camera path is in the
    world of the viewer, which is that of the photos only for models trained with `--orientation-method none
    --center-method none --auto-scale-poses False`.

    origin: the origin of the frame in which the cameras are returned, as a scene or a field has it.
    """
    path = Path(path)
    data = read_bytes(path)
    with reading(path):
        content = json.loads(data)
    is_path = isinstance(content, dict) and "camera_path" in content
    if isinstance(content, list) and content:
        frames = _frames_of_splatting(content, path)
    else:
        frames = _frames_of_path(content, path) if is_path else _frames_of_transforms(path)
    if not frames:
        raise FileFormatError(f"{path}: no cameras")
    local = tuple(frame_to_local(frame, origin) for frame in frames)
    if choose_origin(torch.stack([frame.camera.position for frame in local])) != ZERO:
        log.warning("%s: the cameras are far from the origin, so that their positions are rounded", path)
    return local


def _without_rational_lens(frame: Frame) -> Frame:
    lens = frame.camera.lens
    if lens is None or not bool(lens.denominator.any()):
        return frame
    log.warning("%s: the lens has a denominator and was not saved", frame.name)
    return dataclasses.replace(frame, camera=frame.camera.replace(lens=None))


def _frames_of_transforms(path: Path) -> tuple[Frame, ...]:
    content = read_transforms(path)
    with reading(path):
        splits = read_splits(content)
        return tuple(
            _frame(
                {**content, **values}, path.parent, splits.get(normalized_name(values["file_path"]), "train")
            )
            for values in content["frames"]
        )


def _frame(values: Mapping[str, Any], folder: Path, split: Any) -> Frame:
    listed = values["file_path"]
    image_path = find_image(folder, listed) or folder / listed
    pose, _ = rigid_pose(listed, values.get("transform_matrix"))
    return Frame(
        listed, _checked_size(listed, camera_from_table(values, pose, image_path)), image_path, split
    )


def _frames_of_path(content: Mapping[str, Any], path: Path) -> tuple[Frame, ...]:
    with reading(path):
        kind = content.get("camera_type", "perspective")
        if kind != "perspective":
            raise FileFormatError(f"camera type {kind!r} is not supported; expected 'perspective'")
        height, width = (
            int(number(content, f"render_{side}", "camera path")) for side in ("height", "width")
        )
        if height < 1 or width < 1 or not isinstance(content["camera_path"], list):
            raise FileFormatError(
                f"a camera path needs a positive render size, got {height} × {width}, and a list 'camera_path'"
            )
        frames = []
        for i, values in enumerate(content["camera_path"]):
            pose, _ = rigid_pose(
                str(i), torch.tensor(values["camera_to_world"], dtype=torch.float64).reshape(-1, 4).tolist()
            )
            fov = number(values, "fov", f"frame {i}")
            if not 0 < fov < 180:
                raise FileFormatError(f"frame {i}: 'fov' should lie between 0 and 180 degrees, got {fov:g}")
            focal = height / 2 / math.tan(math.radians(fov / 2))
            center = torch.tensor([width / 2, height / 2])
            camera = Camera(torch.tensor([focal] * 2), center, torch.eye(4), height, width)
            camera = place_camera(camera, pose)
            name = f"view_{i:03d}.png"
            frames.append(Frame(name, _checked_size(name, camera), path.parent / name))
        return tuple(frames)


def _frames_of_splatting(content: Sequence[Any], path: Path) -> tuple[Frame, ...]:
    """Read cameras as 3D Gaussian splatting lists them: camera centers, and rotations from camera to world."""
    frames = []
    with reading(path):
        for i, values in enumerate(content):
            name = str(values.get("img_name", f"view_{i:03d}.png"))
            rows = [
                [row[0], -row[1], -row[2], center]  # to the axes of OpenGL
                for row, center in zip(values["rotation"], values["position"], strict=True)
            ]
            pose, _ = rigid_pose(name, [*rows, [0, 0, 0, 1]])
            focal = torch.tensor([number(values, key, name) for key in ("fx", "fy")])
            height, width = (int(number(values, key, name)) for key in ("height", "width"))
            if height < 1 or width < 1:
                raise FileFormatError(f"frame {name}: expected a positive size, got {height} × {width}")
            center = torch.tensor([width / 2, height / 2])
            camera = place_camera(Camera(focal, center, torch.eye(4), height, width), pose)
            frames.append(Frame(name, _checked_size(name, camera), path.parent / name))
    return tuple(frames)


def _checked_size(name: str, camera: Camera) -> Camera:
    if camera.height * camera.width > MAX_PIXELS:
        raise FileFormatError(
            f"frame {name}: an image of {camera.width} × {camera.height} pixels is too large"
        )
    return check_intrinsics(name, camera)
