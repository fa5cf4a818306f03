"""Sequences of RGB-D SLAM benchmarks in the format of TUM: rgb.txt, depth.txt and groundtruth.txt.

Format: https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats
"""

from pathlib import Path

import numpy as np
import torch

from unrender.data.frames import Frame, ParsedScene, fit_camera_to_image, rigid_pose
from unrender.data.listed_files import find_file, find_images
from unrender.errors import FileFormatError
from unrender.geometry.camera import Camera, invert_rigid
from unrender.geometry.lens import Lens
from unrender.geometry.rotations import rotation_from_quaternion
from unrender.io.depth import DepthFile
from unrender.io.files import read_bytes, reading
from unrender.io.lines import is_number, split_lines

IMAGES, DEPTHS, POSES = "rgb.txt", "depth.txt", "groundtruth.txt"
DEPTH_SCALE = 1 / 5000
"""Meters per unit of the depth images."""
MAX_DELAY = 0.02
"""Seconds between an image and its pose or depth image, as in the benchmark's own tools."""
SIZE = (480, 640)
CALIBRATIONS = {
    "freiburg1": ((517.3, 516.5), (318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": ((520.9, 521.0), (325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": ((535.4, 539.2), (320.1, 247.6), (0.0, 0.0, 0.0, 0.0, 0.0)),
}
"""Focal lengths, principal point (of pixels with integer centers) and k1 k2 p1 p2 k3 of the benchmark's cameras."""
DEFAULT_CALIBRATION = ((525.0, 525.0), (319.5, 239.5), (0.0, 0.0, 0.0, 0.0, 0.0))


def recognizes(path: Path) -> bool:
    """Return whether there are lists of images and poses."""
    return path.is_dir() and all((path / name).is_file() for name in (IMAGES, POSES))


def read(path: Path, inverted_depth_range: float | None) -> ParsedScene:
    """Read the images that have a pose at nearly the same time, and their depth images; units are meters."""
    notes: dict[str, None] = {}
    times, names = _read_list(path / IMAGES)
    pose_times, poses = _read_list(path / POSES)
    depth_times, depths = _read_list(path / DEPTHS) if (path / DEPTHS).is_file() else (np.empty(0), [])
    images = find_images(path, [" ".join(words) for words in names], notes)
    camera = _camera(path.resolve().name, notes)
    frames: list[Frame] = []
    missing: list[str] = []
    without_pose: list[str] = []
    for time, words in zip(times, names, strict=True):
        name, pose_index = " ".join(words), _closest(pose_times, time)
        image = images[name]
        if image is None:
            missing.append(name)
        elif pose_index is None:
            without_pose.append(name)
        else:
            with reading(path / POSES):
                pose = _pose(name, poses[pose_index])
            fitted, note = fit_camera_to_image(camera.replace(camera_from_world=pose), image, name)
            notes |= {note: None} if note else {}
            depth_index = _closest(depth_times, time)
            depth = None if depth_index is None else find_file(path, " ".join(depths[depth_index]))
            file = None if depth is None else DepthFile(depth, DEPTH_SCALE)
            frames.append(Frame(name, fitted, image, depth_file=file))
    return ParsedScene(
        path.resolve().name, path, frames, missing=missing, without_pose=without_pose, notes=list(notes)
    )


def _read_list(path: Path) -> tuple[np.ndarray, list[list[str]]]:
    """Read rows of a time in seconds and other words, sorted by time."""
    data = read_bytes(path)
    rows: list[tuple[float, list[str]]] = []
    with reading(path):
        for number, line in enumerate(split_lines(data), 1):
            words = line.replace(",", " ").split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) < 2 or not is_number(words[0]):
                raise FileFormatError(f"line {number}: expected a time in seconds and a file or pose")
            rows.append((float(words[0]), words[1:]))
    rows.sort(key=lambda row: row[0])
    return np.array([time for time, _ in rows]), [words for _, words in rows]


def _closest(times: np.ndarray, time: float) -> int | None:
    if not len(times):
        return None
    index = int(np.abs(times - time).argmin())
    return index if abs(times[index] - time) <= MAX_DELAY else None


def _pose(name: str, words: list[str]) -> torch.Tensor:
    """Return camera_from_world; the file has world_from_camera as tx ty tz qx qy qz qw."""
    if len(words) < 7 or not all(map(is_number, words[:7])):
        raise FileFormatError(
            f"frame {name}: its pose should be tx ty tz qx qy qz qw, got {' '.join(words)[:60]}"
        )
    x, y, z, *quaternion = (float(word) for word in words[:7])
    wxyz = torch.tensor([quaternion[3], *quaternion[:3]], dtype=torch.float64)
    if not 0.99 < float(wxyz.norm()) < 1.01:
        raise FileFormatError(f"frame {name}: its quaternion {quaternion} does not have unit length")
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3], matrix[:3, 3] = rotation_from_quaternion(wxyz / wxyz.norm()), torch.tensor([x, y, z])
    pose, _ = rigid_pose(name, invert_rigid(matrix).numpy())
    return pose


def _camera(name: str, notes: dict[str, None]) -> Camera:
    """Return the calibrated camera of the benchmark's sequences, or that of an ideal sensor, with a note."""
    known = next((value for key, value in CALIBRATIONS.items() if key in name.lower()), None)
    if known is None:
        notes["intrinsics are not part of the TUM format: assumed a focal length of 525 pixels"] = None
    focal, center, (k1, k2, p1, p2, k3) = known or DEFAULT_CALIBRATION
    lens = Lens.brown([k1, k2, k3], [p1, p2]) if k1 else None
    shifted = torch.tensor(center) + 0.5
    return Camera(torch.tensor(focal), shifted, torch.eye(4), *SIZE, lens=lens)
