"""Equirectangular scenes of transforms.json: resampling to perspective views with known cameras."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unrender.data.frames import Frame, Split, rigid_pose
from unrender.data.listed_files import find_images, normalized_name
from unrender.data.nerfstudio import EQUIRECTANGULAR, read_splits, read_transforms
from unrender.errors import FileFormatError
from unrender.geometry.camera import Camera
from unrender.geometry.rays import pixel_centers
from unrender.io.file_names import safe_file_names, without_suffix
from unrender.io.files import MissingFileError, reading
from unrender.io.geometry_data import Floats
from unrender.io.images import ASPECT_TOLERANCE, load_image, save_image

FACES = {
    "front": ((0, 0, 1), (0, 1, 0)),
    "right": ((1, 0, 0), (0, 1, 0)),
    "back": ((0, 0, -1), (0, 1, 0)),
    "left": ((-1, 0, 0), (0, 1, 0)),
    "up": ((0, -1, 0), (0, 0, 1)),
    "down": ((0, 1, 0), (0, 0, -1)),
}
"""Forward and down of each view of 90 degrees, in the frame of the panorama: +x right, +y down, +z at its center."""


def is_panorama_scene(path: Path) -> bool:
    """Return whether a path is a transforms.json, or has one, whose camera model is EQUIRECTANGULAR."""
    path = path / "transforms.json" if path.is_dir() else path
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    content = read_transforms(path)
    return any(_model({**content, **values}) == EQUIRECTANGULAR for values in content["frames"])


def split_panoramas(path: Path, folder: Path) -> Iterator[list[Frame]]:
    """Save six views of 90 degrees of each panorama to `folder`, and yield their frames, panorama by panorama.

    The side of a view is a quarter of the width of the panorama. Colors are interpolated bilinearly.
    Raises FileFormatError for images that are not twice as wide as high, and for frames of another camera model.
    """
    path = path / "transforms.json" if path.is_dir() else path
    content = read_transforms(path)
    tables = [{**content, **values} for values in content["frames"]]
    with reading(path):
        splits = read_splits(content)
        images = find_images(path.parent, [table["file_path"] for table in tables], {})
    names = safe_file_names([without_suffix(table["file_path"]) for table in tables])
    for table, name in zip(tables, names, strict=True):
        listed = table["file_path"]
        image = images[listed]
        if image is None:
            raise MissingFileError(f"{path}: frame {listed}: the image does not exist")
        with reading(path):
            if _model(table) != EQUIRECTANGULAR:
                raise FileFormatError(f"frame {listed}: not all frames are {EQUIRECTANGULAR}")
            pose, _ = rigid_pose(listed, table.get("transform_matrix"))
        camera_from_world = Camera.from_opengl(pose, 1.0, height=1, width=1).camera_from_world
        split = splits.get(normalized_name(listed), "train")
        yield _views(image, folder / name, camera_from_world, split)


def _model(table: dict[str, object]) -> str:
    return str(table.get("camera_model", "")).upper()


def _views(image: Path, target: Path, camera_from_world: Tensor, split: Split) -> list[Frame]:
    panorama = load_image(image)[..., :3].numpy()
    height, width = panorama.shape[:2]
    if abs(width / (2 * height) - 1) > ASPECT_TOLERANCE or width < 8:
        raise FileFormatError(
            f"{image}: an equirectangular image should be twice as wide as high, got {width} × {height}"
        )
    side = width // 4
    frames = []
    for face, (forward, down) in FACES.items():
        axes = torch.tensor([np.cross(down, forward).tolist(), down, forward]).to(camera_from_world)
        rotation = torch.eye(4).to(camera_from_world)
        rotation[:3, :3] = axes
        camera = Camera(
            torch.tensor([side / 2] * 2),
            torch.tensor([side / 2] * 2),
            rotation @ camera_from_world,
            side,
            side,
        )
        path = target.with_name(f"{target.name}_{face}.jpg")
        save_image(torch.from_numpy(_resample(panorama, camera, axes.numpy())), path)
        frames.append(Frame(path.name, camera, path, split))
    return frames


def _resample(panorama: Floats, camera: Camera, axes: Floats) -> Floats:
    """Interpolate a panorama along the rays of a view whose axes (right, down, forward) are the rows of a matrix."""
    from scipy import ndimage

    height, width = panorama.shape[:2]
    right, down = ((pixel_centers(camera) - camera.center) / camera.focal).double().numpy().transpose(2, 0, 1)
    x, y, z = np.moveaxis(np.stack([right, down, np.ones_like(right)], -1) @ axes, -1, 0)
    columns = (np.arctan2(x, z) / (2 * np.pi) + 0.5) * width - 0.5
    rows = (np.arctan2(y, np.hypot(x, z)) / np.pi + 0.5) * height - 0.5
    wrapped = np.pad(panorama, ((1, 1), (0, 0), (0, 0)), mode="edge")
    wrapped = np.pad(wrapped, ((0, 0), (1, 1), (0, 0)), mode="wrap")
    found = [
        ndimage.map_coordinates(wrapped[..., i], [rows + 1, columns + 1], order=1, mode="nearest")
        for i in range(3)
    ]
    colors: Floats = np.stack(found, -1).astype(np.float32).clip(0, 1)
    return colors
