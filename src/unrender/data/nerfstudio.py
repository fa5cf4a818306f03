"""Scenes of nerfstudio and instant-ngp: transforms.json."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from unrender.data.frames import (
    MAX_COORDINATE,
    Frame,
    ParsedScene,
    Split,
    check_intrinsics,
    fit_camera_to_image,
    number,
    place_camera,
    rigid_pose,
)
from unrender.data.listed_files import find_file, find_images, normalized_name
from unrender.errors import FileFormatError
from unrender.geometry.camera import Camera
from unrender.geometry.lens import Lens
from unrender.io.depth import MILLIMETERS, DepthFile
from unrender.io.files import is_file, read_bytes, reading
from unrender.io.images import ASPECT_TOLERANCE, image_size

PINHOLES = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE", "FULL_OPENCV")
FISHEYES = ("OPENCV_FISHEYE", "FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
EQUIRECTANGULAR = "EQUIRECTANGULAR"
NGP_SCALE, NGP_OFFSET = 0.33, (0.5, 0.5, 0.5)
"""instant-ngp maps positions to its unit cube by position · scale + offset."""


def recognizes(path: Path) -> bool:
    """Return whether there is a transforms.json, or `path` is a json file."""
    return path.suffix.lower() == ".json" if path.is_file() else (path / "transforms.json").is_file()


def read(path: Path, inverted_depth_range: float | None) -> ParsedScene:
    """Read intrinsics, shared or per frame, and poses, which are `world_from_camera` in OpenGL's convention."""
    from unrender.io.clouds import load_cloud

    path = path if path.is_file() else path / "transforms.json"
    folder = path.parent
    content = read_transforms(path)
    frames: list[Frame] = []
    missing: list[str] = []
    notes: dict[str, None] = {}
    with reading(path):
        tables, splits = _select_frames(content, notes)
        paths = find_images(folder, [values["file_path"] for values in tables], notes)
        for values in tables:
            path_of_image = paths[values["file_path"]]
            if path_of_image is None:
                missing.append(values["file_path"])
            else:
                frames.append(make_frame({**content, **values}, path_of_image, folder, splits, notes))
        bounds = _aabb(content)
        cloud = _point_file(content, folder, notes)
    points = None if cloud is None else load_cloud(cloud)
    return ParsedScene(
        folder.resolve().name, folder, frames, bool(splits), bounds, missing, (), points, list(notes)
    )


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
                "expected an object with a list 'frames' of objects; this json holds something else"
            )
        for i, frame in enumerate(frames):
            if not isinstance(frame.get("file_path"), str):
                raise FileFormatError(f"frame {i} has no 'file_path'")
        return content  # type: ignore[no-any-return]


def make_frame(
    values: Mapping[str, Any], path: Path, folder: Path, splits: Mapping[str, Split], notes: dict[str, None]
) -> Frame:
    """Return the frame of the image at `path`."""
    listed = values["file_path"]
    pose, rounded = rigid_pose(listed, values.get("transform_matrix"))
    if rounded:
        notes["nearly rigid poses were orthonormalized"] = None
    camera, note = fit_camera_to_image(camera_from_table(values, pose, path), path, listed)
    if note:
        notes[note] = None
    name = normalized_name(listed)
    mask, ignored = mask_paths(values, path, folder, notes)
    return Frame(
        name,
        camera,
        path,
        splits.get(name, "train"),
        mask,
        read_depth_file(values, folder, notes),
        ignored_path=ignored,
    )


def camera_from_table(values: Mapping[str, Any], pose: Tensor, path: Path) -> Camera:
    """Return the camera of a frame, its pose in float64.

    Missing focal lengths come from angles, a missing center from the image size.

    The image at `path` is opened only if its size is not given.
    """
    where = f"frame {values['file_path']}"
    if "h" in values and "w" in values:
        height, width = (int(number(values, key, where)) for key in ("h", "w"))
    else:
        height, width = image_size(path)
    if str(values.get("camera_model")).upper() == EQUIRECTANGULAR:
        return _equirectangular_camera(pose, height, width, where)
    if "fl_x" in values:
        fx = number(values, "fl_x", where)
    elif "camera_angle_x" in values:
        fx = _focal(values, "camera_angle_x", where, width)
    else:
        raise FileFormatError(f"{where}: no focal length; expected 'fl_x' or 'camera_angle_x'")
    if "fl_y" in values:
        fy = number(values, "fl_y", where)
    elif "camera_angle_y" in values and "fl_x" not in values:
        fy = _focal(values, "camera_angle_y", where, height)
    else:
        fy = fx
    center = (number(values, "cx", where, width / 2), number(values, "cy", where, height / 2))
    if not (fx > 0 and fy > 0 and height > 0 and width > 0):
        raise FileFormatError(f"{where}: its focal lengths {fx:g}, {fy:g} and size should be positive")
    camera = Camera(torch.tensor([fx, fy]), torch.tensor(center), torch.eye(4), height, width)
    camera = place_camera(camera, pose)
    return check_intrinsics(values["file_path"], camera.replace(lens=_lens(values, where)))


def _equirectangular_camera(pose: Tensor, height: int, width: int, where: str) -> Camera:
    """Return a 360° camera; focal lengths and centers in the file, which programs define differently, are not used."""
    if height < 1 or abs(width / (2 * height) - 1) > ASPECT_TOLERANCE:
        raise FileFormatError(
            f"{where}: an equirectangular image should be twice as wide as high, got {width} × {height}"
        )
    camera = Camera(torch.ones(2), torch.zeros(2), torch.eye(4), 1, 1).to_equirectangular(height)
    return place_camera(camera.resize(height, width), pose)


def _focal(values: Mapping[str, Any], key: str, where: str, pixels: int) -> float:
    angle = number(values, key, where)
    if not 0 < angle < math.pi:
        raise FileFormatError(f"{where}: {key!r} should lie between 0 and π, got {angle}")
    return pixels / 2 / math.tan(angle / 2)


def _lens(values: Mapping[str, Any], where: str) -> Lens | None:
    """Read the lens: for pinholes k1 … k4, p1, p2 with k3 r⁶ and k4 r⁸, for fisheyes OpenCV's k1 … k4.

    In FULL_OPENCV, k4, k5 and k6 belong to the denominator.
    """
    model = str(values.get("camera_model", "OPENCV")).upper()
    if model not in PINHOLES + FISHEYES:
        raise FileFormatError(
            f"{where}: camera model {model} is not supported; supported are {', '.join(PINHOLES + FISHEYES)}"
        )
    if model == "FULL_OPENCV":
        k1, k2, k3, *denominator = (number(values, f"k{i}", where, 0.0) for i in range(1, 7))
        return Lens.brown(
            [k1, k2, k3], [number(values, key, where, 0.0) for key in ("p1", "p2")], denominator
        )
    radial = [number(values, key, where, 0.0) for key in ("k1", "k2", "k3", "k4")]
    tangential = [number(values, key, where, 0.0) for key in ("p1", "p2")]
    if model in FISHEYES or values.get("is_fisheye") is True:
        return Lens.fisheye(radial)
    return Lens.brown(radial, tangential) if any(radial + tangential) else None


def _select_frames(
    content: Mapping[str, Any], notes: dict[str, None]
) -> tuple[list[dict[str, Any]], dict[str, Split]]:
    """Return the frames to use and their splits: if there is a list of training images, those that a list names."""
    tables, splits = content["frames"], read_splits(content)
    listed = [table for table in tables if normalized_name(table["file_path"]) in splits]
    if splits and not listed:
        notes[
            "the lists of training, validation and test images name none of the frames; they are ignored"
        ] = None
        return tables, {}
    if "train" not in splits.values() or len(listed) == len(tables):
        return tables, splits
    notes[
        f"{len(tables) - len(listed)} of {len(tables)} frames are in none of the lists train_filenames, "
        "val_filenames and test_filenames; they are not used"
    ] = None
    return listed, splits


def read_splits(content: Mapping[str, Any]) -> dict[str, Split]:
    """Read the splits, if the file lists them, by normalized names."""
    found: dict[str, Split] = {}
    for split in get_args(Split):
        names = content.get(f"{split}_filenames", [])
        if not isinstance(names, list):
            raise FileFormatError(f"'{split}_filenames' should be a list of images")
        found |= {normalized_name(str(name)): split for name in names}
    return found


def _existing_path(values: Mapping[str, Any], key: str, folder: Path, notes: dict[str, None]) -> Path | None:
    """Return the path of a mask or a depth image; add a note if it is listed but does not exist."""
    listed = values.get(key)
    if listed is None:
        return None
    path = find_file(folder, str(listed))
    note = f"files listed as '{key}' do not exist and are ignored; the first is "
    if path is None and not any(other.startswith(note) for other in notes):
        notes[f"{note}{listed}, of frame {values['file_path']}"] = None
    return path


def mask_paths(
    values: Mapping[str, Any], image: Path, folder: Path, notes: dict[str, None]
) -> tuple[Path | None, Path | None]:
    """Return the image of the pixels to use, and instant-ngp's image of the pixels to ignore, beside the photo."""
    dynamic = image.with_name(f"dynamic_mask_{image.stem}.png")
    return _existing_path(values, "mask_path", folder, notes), dynamic if is_file(dynamic) else None


def read_depth_file(values: Mapping[str, Any], folder: Path, notes: dict[str, None]) -> DepthFile | None:
    """Return nerfstudio's depth image, in millimeters, or instant-ngp's, in units of `integer_depth_scale`."""
    path = _existing_path(values, "depth_file_path", folder, notes)
    if path is not None:
        return DepthFile(path, MILLIMETERS, is_assumed=True)
    path = _existing_path(values, "depth_path", folder, notes)
    if path is None:
        return None
    where = f"frame {values['file_path']}"
    scale = number(values, "integer_depth_scale", where, MILLIMETERS)
    if not scale > 0:
        raise FileFormatError(f"{where}: 'integer_depth_scale' should be positive, got {scale:g}")
    return DepthFile(path, scale, is_assumed="integer_depth_scale" not in values)


def _aabb(content: Mapping[str, Any]) -> Tensor | None:
    """Convert instant-ngp's `aabb_scale`, the side of a centered cube, to world units."""
    if "aabb_scale" not in content:
        return None
    half = number(content, "aabb_scale", "transforms.json") / 2
    scale = number(content, "scale", "transforms.json", NGP_SCALE)
    offset = torch.tensor(content.get("offset", NGP_OFFSET), dtype=torch.float64)
    if offset.shape != (3,) or not (half > 0 and scale > 0):
        raise FileFormatError("'aabb_scale' and 'scale' should be positive, 'offset' three numbers")
    center = (0.5 - offset) / scale
    bounds = torch.stack([center - half / scale, center + half / scale])
    if not float(bounds.abs().max()) <= MAX_COORDINATE:
        raise FileFormatError(f"the cube of 'aabb_scale', 'scale' and 'offset' exceeds {MAX_COORDINATE:g}")
    return bounds


def _point_file(content: Mapping[str, Any], folder: Path, notes: dict[str, None]) -> Path | None:
    """Return the path of the point cloud of a nerfstudio scene; add a note if it is listed but does not exist."""
    listed = content.get("ply_file_path")
    if listed is None:
        return None
    path = find_file(folder, str(listed))
    if path is None:
        notes[f"the point cloud {listed} does not exist"] = None
    return path
