"""Equirectangular scenes of transforms.json: resampling to perspective views with known cameras."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrender.data.frames import Frame, Split, rigid_pose
from unrender.data.listed_files import find_images, normalized_name
from unrender.data.nerfstudio import (
    EQUIRECTANGULAR,
    mask_paths,
    read_depth_file,
    read_splits,
    read_transforms,
)
from unrender.errors import FileFormatError
from unrender.geometry.camera import Camera
from unrender.geometry.rays import pixel_centers, rays_of
from unrender.io.depth import MILLIMETERS, DepthFile
from unrender.io.file_names import safe_file_names, without_suffix
from unrender.io.files import MissingFileError, atomic_write, reading
from unrender.io.geometry_data import Floats
from unrender.io.images import ASPECT_TOLERANCE, load_image, resample_nearest, save_image

log = logging.getLogger("unrender")
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

    The side of a view is a quarter of the width of the panorama. Colors are interpolated bilinearly; masks and depth,
    which is the distance along the ray in panoramas, are those of the nearest pixels.
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
        panorama = _load(path.parent, image, table)
        yield _views(panorama, folder / name, camera_from_world, split)


def _model(table: dict[str, object]) -> str:
    return str(table.get("camera_model", "")).upper()


class _Panorama(NamedTuple):
    """A panorama, with its mask and its distances if it has some."""

    colors: Floats
    mask: Floats | None
    distance: Floats | None


def _load(folder: Path, image: Path, table: dict[str, Any]) -> _Panorama:
    """Load a panorama, and what its frame lists beside it."""
    colors = load_image(image)[..., :3].numpy()
    height, width = colors.shape[:2]
    if abs(width / (2 * height) - 1) > ASPECT_TOLERANCE or width < 8:
        raise FileFormatError(
            f"{image}: an equirectangular image should be twice as wide as high, got {width} × {height}"
        )
    notes: dict[str, None] = {}
    mask_path, ignored_path = mask_paths(table, image, folder, notes)
    depth_file = read_depth_file(table, folder, notes)
    for note in notes:
        log.warning("%s", note)
    camera = Camera.from_opengl(torch.eye(4), 1.0, height=height, width=width)
    mask = Frame(image.name, camera, image, mask_path=mask_path, ignored_path=ignored_path).load_mask()
    distance = None
    if depth_file is not None:
        distance = resample_nearest(depth_file.read(), (height, width), "a depth image", "its panorama")
    return _Panorama(colors, mask, distance)


def _views(panorama: _Panorama, target: Path, camera_from_world: Tensor, split: Split) -> list[Frame]:
    side, frames = panorama.colors.shape[1] // 4, []
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
        pixels = _positions(camera, axes.numpy(), panorama.colors.shape)
        path = target.with_name(f"{target.name}_{face}.jpg")
        save_image(torch.from_numpy(_interpolate(panorama.colors, *pixels)), path)
        frame = Frame(path.name, camera, path, split)
        if panorama.mask is not None:
            mask = torch.from_numpy(_nearest(panorama.mask, *pixels)).float()
            frame = dataclasses.replace(frame, mask_path=path.with_name(f"{path.stem}_mask.png"))
            save_image(mask[..., None].expand(-1, -1, 3), path.with_name(f"{path.stem}_mask.png"))
        if panorama.distance is not None:
            depth_path = path.with_name(f"{path.stem}_depth.npy")
            cosines = rays_of(camera).directions @ camera.camera_from_world[2, :3]
            z = _nearest(panorama.distance, *pixels) * cosines.numpy() / MILLIMETERS
            with atomic_write(depth_path) as file:
                np.save(file, z.astype(np.float32))
            frame = dataclasses.replace(frame, depth_file=DepthFile(depth_path, MILLIMETERS))
        frames.append(frame)
    return frames


def _positions(camera: Camera, axes: Floats, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return rows and columns of a panorama for the pixels of a view whose right, down and forward axes are rows."""
    height, width = shape[:2]
    right, down = ((pixel_centers(camera) - camera.center) / camera.focal).double().numpy().transpose(2, 0, 1)
    x, y, z = np.moveaxis(np.stack([right, down, np.ones_like(right)], -1) @ axes, -1, 0)
    columns = (np.arctan2(x, z) / (2 * np.pi) + 0.5) * width - 0.5
    rows = (np.arctan2(y, np.hypot(x, z)) / np.pi + 0.5) * height - 0.5
    return rows, columns


def _nearest(panorama: Floats, rows: Floats, columns: Floats) -> Floats:
    height, width = panorama.shape
    values: Floats = panorama[
        np.rint(rows).astype(int).clip(0, height - 1), np.rint(columns).astype(int) % width
    ]
    return values


def _interpolate(panorama: Floats, rows: Floats, columns: Floats) -> Floats:
    """Interpolate bilinearly; panoramas continue at the left and right edges."""
    from scipy import ndimage

    wrapped = np.pad(panorama, ((1, 1), (0, 0), (0, 0)), mode="edge")
    wrapped = np.pad(wrapped, ((0, 0), (1, 1), (0, 0)), mode="wrap")
    found = [
        ndimage.map_coordinates(wrapped[..., i], [rows + 1, columns + 1], order=1, mode="nearest")
        for i in range(3)
    ]
    colors: Floats = np.stack(found, -1).astype(np.float32).clip(0, 1)
    return colors
