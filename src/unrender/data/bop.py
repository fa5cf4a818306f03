"""Scenes of the BOP benchmark for pose estimation: scene_camera.json, rgb/ and depth/, in millimeters.

Format: https://github.com/thodan/bop_toolkit/blob/master/docs/bop_datasets_format.md
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unrender.data.frames import Frame, ParsedScene, check_intrinsics, number, rigid_pose
from unrender.errors import FileFormatError
from unrender.geometry.camera import Camera
from unrender.io.depth import DepthFile
from unrender.io.files import read_bytes, reading
from unrender.io.images import IMAGE_SUFFIXES, image_size

CAMERAS = "scene_camera.json"
FOLDERS = ("rgb", "gray")


def recognizes(path: Path) -> bool:
    """Return whether there is a list of cameras."""
    return (path / CAMERAS).is_file()


def read(path: Path, inverted_depth_range: float | None) -> ParsedScene:
    """Read the images that have a camera with a pose, and their depth images; units are millimeters."""
    data = read_bytes(path / CAMERAS)
    frames: list[Frame] = []
    missing: list[str] = []
    with reading(path / CAMERAS):
        content = json.loads(data)
        if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
            raise FileFormatError("expected an object with a camera for each image ID")
        for key in sorted(content, key=int):
            image = _file(path, FOLDERS, int(key))
            if image is None:
                missing.append(f"{FOLDERS[0]}/{int(key):06d}.png")
            else:
                frames.append(_frame(path, image, int(key), content[key]))
    return ParsedScene(path.resolve().name, path, frames, missing=missing)


def _file(path: Path, folders: tuple[str, ...], index: int) -> Path | None:
    names = (path / folder / f"{index:06d}{suffix}" for folder in folders for suffix in IMAGE_SUFFIXES)
    return next((name for name in names if name.is_file()), None)


def _frame(path: Path, image: Path, index: int, values: dict[str, Any]) -> Frame:
    name = image.relative_to(path).as_posix()
    if "cam_R_w2c" not in values or "cam_t_w2c" not in values:
        raise FileFormatError(
            f"frame {name}: no pose of the camera (cam_R_w2c, cam_t_w2c); this scene has poses of objects only, "
            "which `unrender find-pose` estimates from its images"
        )
    intrinsics, rotation = (np.array(values[key], np.float64).reshape(3, 3) for key in ("cam_K", "cam_R_w2c"))
    pose, _ = rigid_pose(name, np.hstack([rotation, np.array(values["cam_t_w2c"], np.float64).reshape(3, 1)]))
    focal = torch.tensor([intrinsics[0, 0], intrinsics[1, 1]]).float()
    center = torch.tensor([intrinsics[0, 2], intrinsics[1, 2]]).float() + 0.5  # pixels with integer centers
    camera = check_intrinsics(name, Camera(focal, center, torch.eye(4), *image_size(image)))
    depth = _file(path, ("depth",), index)
    scale = number(values, "depth_scale", f"frame {name}", 1.0)
    if not scale > 0:
        raise FileFormatError(f"frame {name}: 'depth_scale' should be positive, got {scale:g}")
    return Frame(
        name,
        camera.replace(camera_from_world=pose),
        image,
        depth_file=None if depth is None else DepthFile(depth, scale),
    )
