"""COLMAP scenes: a sparse model and a folder of images."""

from pathlib import Path

import numpy as np
import torch

from unrender.data.colmap_model import (
    ColmapCamera,
    ColmapImage,
    ColmapModel,
    ColmapPoints,
    find_models,
    largest_model,
    read_model,
)
from unrender.data.frames import Frame, ParsedScene, check_intrinsics, fit_camera_to_image, rigid_pose
from unrender.data.listed_files import find_images
from unrender.errors import FileFormatError
from unrender.geometry.camera import Camera
from unrender.geometry.lens import Lens
from unrender.geometry.points import PointCloud
from unrender.io.files import is_file, reading
from unrender.io.geometry_data import Floats
from unrender.io.images import IMAGE_SUFFIXES, is_hidden

MIN_POINTS = 20
"""Minimum number of points in a frame to estimate near and far."""
DEPTH_QUANTILES = (0.01, 0.99)
"""Quantiles of the depths of a frame's points that become near and far."""
MARGIN = 0.1


def recognizes(path: Path) -> bool:
    """Return whether there is a model."""
    return path.is_dir() and bool(find_models(path))


def read(path: Path, inverted_depth_range: float | None) -> ParsedScene:
    """Read the model with the most images."""
    if not path.is_dir():
        raise FileFormatError(f"{path}: a COLMAP scene is a folder")
    folder, num_models = largest_model(path)
    model = read_model(folder)
    notes: dict[str, None] = {}
    if num_models > 1:
        notes[f"{num_models} models: {folder.relative_to(path)} has the most images, {len(model.images)}"] = (
            None
        )
    images = _image_folder(path, model)
    with reading(folder):
        found = frames_from_model(model, images, notes, path)
    frames = [frame for frame in found if isinstance(frame, Frame)]
    used = {frame.image_path for frame in frames}
    registered = {image.name for image in model.images}
    return ParsedScene(
        path.resolve().name,
        path,
        frames,
        missing=[frame for frame in found if isinstance(frame, str)],
        without_pose=[
            name for name in _list_images(images) if name not in registered and images / name not in used
        ],
        points=cloud_from_model(model),
        notes=list(notes),
    )


def frames_from_model(
    model: ColmapModel, images: Path, notes: dict[str, None], below: Path | None = None
) -> list[Frame | str]:
    """Return a frame for each registered image, its pose and points in float64, or the name of a missing file.

    Images that are not in the folder `images` under their names are looked for `below` another one.
    """
    cameras = {key: _intrinsics(key, camera) for key, camera in model.cameras.items()}
    order = np.argsort(model.points.ids)
    points = model.points._replace(ids=model.points.ids[order], positions=model.points.positions[order])
    paths = find_images(images, [image.name for image in model.images], notes, below)
    return [_frame(image, cameras, points, paths[image.name], notes) for image in model.images]


def cloud_from_model(model: ColmapModel) -> PointCloud | None:
    """Return the finite points, in float64, with their colors."""
    points = model.points
    finite = np.isfinite(points.positions).all(axis=1)
    if not finite.any():
        return None
    return PointCloud(
        torch.from_numpy(points.positions[finite]),
        colors=torch.from_numpy(points.colors[finite] / 255).float(),
    )


def _image_folder(path: Path, model: ColmapModel) -> Path:
    """Return the folder with the most registered images."""
    candidates = [path / "images", path, path.parent / "images", *sorted(path.glob("images_[0-9]*"))]
    return max(
        (folder for folder in candidates if folder.is_dir()),
        key=lambda folder: sum(is_file(folder / image.name) for image in model.images),
        default=path,
    )


def _list_images(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name)
    )


def _intrinsics(key: int, camera: ColmapCamera) -> Camera:
    """Convert COLMAP's parameters to a camera at the origin."""
    focal, center, lens = _parameters(key, camera)
    if not (
        np.isfinite(camera.parameters).all()
        and min(focal) > 0
        and 0 < camera.width < 2**20
        and 0 < camera.height < 2**20
    ):
        raise FileFormatError(
            f"camera {key}: {camera.width} × {camera.height} pixels and {camera.parameters} are invalid"
        )
    intrinsics = Camera(
        torch.tensor(focal), torch.tensor(center), torch.eye(4), camera.height, camera.width, lens=lens
    )
    return check_intrinsics(f"with camera {key}", intrinsics)


def _parameters(
    key: int, camera: ColmapCamera
) -> tuple[tuple[float, float], tuple[float, float], Lens | None]:
    """Return focal lengths, principal point and lens."""
    model, values = camera.model, camera.parameters
    single = model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
    counts = {
        "SIMPLE_PINHOLE": 0,
        "PINHOLE": 0,
        "SIMPLE_RADIAL": 1,
        "RADIAL": 2,
        "OPENCV": 4,
        "FULL_OPENCV": 8,
        "OPENCV_FISHEYE": 4,
        "SIMPLE_RADIAL_FISHEYE": 1,
        "RADIAL_FISHEYE": 2,
    }
    if model not in counts:
        raise FileFormatError(
            f"camera {key}: its camera model {model} is not supported; undistort the images with "
            "`colmap image_undistorter`, or choose OPENCV"
        )
    if len(values) != counts[model] + (3 if single else 4):
        raise FileFormatError(f"camera {key}: {len(values)} parameters do not match its model {model}")
    focal = (values[0], values[0]) if single else (values[0], values[1])
    center, k = (values[1:3], values[3:]) if single else (values[2:4], values[4:])
    if model.endswith("FISHEYE"):
        lens = Lens.fisheye(k)
    elif model in ("OPENCV", "FULL_OPENCV"):
        lens = Lens.brown([*k[:2], *k[4:5]], k[2:4], k[5:])
    else:
        lens = Lens.brown(k)
    is_pinhole = lens.model == "brown" and not any(k)
    return focal, (center[0], center[1]), None if is_pinhole else lens


def _frame(
    image: ColmapImage,
    cameras: dict[int, Camera],
    points: ColmapPoints,
    path: Path | None,
    notes: dict[str, None],
) -> Frame | str:
    """Return a frame, or the name of the image if the file does not exist."""
    if image.camera not in cameras:
        raise FileFormatError(f"frame {image.name}: there is no camera {image.camera}")
    intrinsics = cameras[image.camera]
    quaternion = torch.tensor(image.quaternion, dtype=torch.float64)
    if not 0.999 < float(quaternion.norm()) < 1.001:
        raise FileFormatError(
            f"frame {image.name}: its quaternion {image.quaternion} does not have unit length"
        )
    posed = Camera.from_colmap(
        quaternion / quaternion.norm(),
        torch.tensor(image.translation, dtype=torch.float64),
        1.0,
        height=intrinsics.height,
        width=intrinsics.width,
    )
    pose, _ = rigid_pose(image.name, posed.camera_from_world.numpy())
    if path is None:
        return image.name
    camera, note = fit_camera_to_image(intrinsics.replace(camera_from_world=pose), path, image.name)
    if note:
        notes[note] = None
    visible, depths = _visible_points(pose.numpy(), image, points)
    near, far = _near_and_far(depths)
    return Frame(image.name, camera, path, near=near, far=far, points=torch.from_numpy(visible))


def _visible_points(pose: Floats, image: ColmapImage, points: ColmapPoints) -> tuple[Floats, Floats]:
    """Return the points visible in a frame and their positive depths; `points` are sorted by id."""
    indices = np.searchsorted(points.ids, image.point_ids)
    indices = indices[indices < len(points.ids)]
    indices = indices[np.isin(points.ids[indices], image.point_ids)]
    depths = points.positions[indices] @ pose[2, :3] + pose[2, 3]
    in_front = np.isfinite(depths) & (depths > 0)
    return points.positions[indices[in_front]], depths[in_front]


def _near_and_far(depths: Floats) -> tuple[float | None, float | None]:
    """Return quantiles of depths with a margin."""
    if len(depths) < MIN_POINTS:
        return None, None
    near, far = np.quantile(depths, DEPTH_QUANTILES)
    return float(near * (1 - MARGIN)), float(far * (1 + MARGIN))
