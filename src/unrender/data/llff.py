"""LLFF scenes: poses_bounds.npy and a folder of images."""

import os
from pathlib import Path

import numpy as np
import torch

from unrender.data.frames import (
    Frame,
    ParsedScene,
    check_intrinsics,
    fit_camera_to_image,
    place_camera,
    rigid_pose,
)
from unrender.data.listed_files import AUXILIARY
from unrender.errors import FileFormatError
from unrender.geometry.camera import Camera
from unrender.io.arrays import array_from_npy
from unrender.io.files import MissingFileError, read_bytes, reading
from unrender.io.images import IMAGE_SUFFIXES, is_hidden

MADE_FROM_PHOTOS = ("transforms.json", "config.json", "poses_bounds.npy")
"""Files of folders whose images are copies or results."""


def recognizes(path: Path) -> bool:
    """Return whether there is a poses_bounds.npy."""
    return path.name == "poses_bounds.npy" if path.is_file() else (path / "poses_bounds.npy").is_file()


def read(path: Path, inverted_depth_range: float | None) -> ParsedScene:
    """Read one row for each image in order of names: a 3 × 5 matrix by rows, and the nearest and farthest depth.

    The columns of the matrix are the camera's directions down, right and backward in the world, its position, and
    (height, width, focal length) in pixels.
    """
    path = path if path.is_file() else path / "poses_bounds.npy"
    folder = path.parent
    data = read_bytes(path)
    images = list_images(_image_folder(folder))
    with reading(path):
        table = array_from_npy(data)
        if table.ndim != 2 or table.shape[1] != 17 or table.dtype.kind != "f":
            raise FileFormatError(
                f"expected rows of 17 numbers, got {table.dtype} of shape {list(table.shape)}"
            )
        if len(table) != len(images):
            raise FileFormatError(
                f"{len(table)} poses for {len(images)} images in {_image_folder(folder)}; the counts should be equal"
            )
        notes: dict[str, None] = {}
        frames = [
            _frame(row, image, folder, notes)
            for row, image in zip(table.astype(np.float64), images, strict=True)
        ]
    return ParsedScene(folder.resolve().name, folder, frames, notes=list(notes))


def list_images(folder: Path) -> list[Path]:
    """List the images in a folder, sorted by name, without hidden files."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name)
    )


def list_images_below(folder: Path) -> list[Path]:
    """List the photos in a folder and its subfolders, sorted by path.

    Without hidden files, and without folders of masks and depth, scenes, and runs.
    """
    found: list[Path] = []
    for current, folders, _ in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not is_hidden(name)
            and not name.lower().startswith(AUXILIARY)
            and not any((Path(current) / name / file).is_file() for file in MADE_FROM_PHOTOS)
        ]
        found += list_images(Path(current))
    return sorted(found)


def _image_folder(folder: Path) -> Path:
    """Return the folder with the largest images: images, images_2, images_4, …."""
    candidates = [folder / "images", *(folder / f"images_{n}" for n in (2, 4, 8))]
    for candidate in candidates:
        if candidate.is_dir() and list_images(candidate):
            return candidate
    raise MissingFileError(f"{folder}: poses_bounds.npy needs a folder `images` with the images")


def _frame(row: np.ndarray, path: Path, folder: Path, notes: dict[str, None]) -> Frame:
    name = path.relative_to(folder).as_posix()
    matrix, (near, far) = row[:15].reshape(3, 5), row[15:]
    down, right, backward, position, (height, width, focal) = matrix.T
    pose, _ = rigid_pose(name, np.stack([right, -down, backward, position], axis=1))
    if not (np.isfinite(row).all() and focal > 0 and height >= 1 and width >= 1):
        raise FileFormatError(
            f"frame {name}: its size and focal length should be positive, got {matrix[:, 4]}"
        )
    center = torch.tensor([round(width) / 2, round(height) / 2])
    camera = Camera(torch.tensor([float(focal)] * 2), center, torch.eye(4), round(height), round(width))
    camera = place_camera(check_intrinsics(name, camera), pose)
    camera, note = fit_camera_to_image(camera, path, name)
    if note:
        notes[note] = None
    return Frame(name, camera, path, near=float(near), far=float(far))
