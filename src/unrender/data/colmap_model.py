"""Models of COLMAP: cameras, images and points3D, as .bin or .txt.

Counts in the files are not trusted: a file that is shorter than they say is refused.
Formats: https://colmap.github.io/format.html
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.files import MissingFileError, read_bytes, reading
from unrender.io.geometry_data import Floats, Indices
from unrender.io.lines import is_number

MODELS = (
    ("SIMPLE_PINHOLE", 3),
    ("PINHOLE", 4),
    ("SIMPLE_RADIAL", 4),
    ("RADIAL", 5),
    ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12),
    ("FOV", 5),
    ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5),
    ("THIN_PRISM_FISHEYE", 12),
    ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
)
"""Names and parameter counts; the index of a model is its ID in binary files."""
OBSERVATION = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])
TRACK_ELEMENT = 8
"""Bytes of an element of a point's track: image and point index."""


class ColmapCamera(NamedTuple):
    """Intrinsics, shared by images."""

    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


class ColmapImage(NamedTuple):
    """A registered image."""

    name: str
    quaternion: tuple[float, ...]
    """w, x, y, z, from world to camera."""
    translation: tuple[float, ...]
    camera: int
    point_ids: Indices
    """IDs of the points visible in the image."""


class ColmapPoints(NamedTuple):
    """Triangulated points."""

    ids: Indices
    positions: Floats
    colors: Floats
    """RGB, 0 to 255."""
    errors: Floats
    """Mean reprojection error in pixels."""
    num_views: Indices


class ColmapModel(NamedTuple):
    """One reconstruction."""

    cameras: dict[int, ColmapCamera]
    images: list[ColmapImage]
    points: ColmapPoints


def read_model(folder: Path) -> ColmapModel:
    """Read the three files, binary ones if they exist; points may be missing."""
    suffix = ".bin" if (folder / "images.bin").is_file() else ".txt"
    readers = BINARY if suffix == ".bin" else TEXT
    cameras, images, rows = (_read(folder / f"{name}{suffix}", reader) for name, reader in readers.items())
    with reading(folder / f"points3D{suffix}"):
        points = _points(rows)
    return ColmapModel(dict(cameras), images, points)


def count_images(folder: Path) -> int:
    """Count the registered images of a model, as stated in its file."""
    path = folder / "images.bin"
    if path.is_file():
        data = read_bytes(path)
        with reading(path):
            return int(_Cursor(data).take("<Q")[0])
    return len(_read(folder / "images.txt", _text_images))


def _read(path: Path, reader) -> list:  # type: ignore[no-untyped-def, type-arg]
    if path.stem == "points3D" and not (path.is_file() and path.stat().st_size):
        return []  # known poses have no points: COLMAP's FAQ has users leave the file empty
    data = read_bytes(path)
    with reading(path):
        return list(reader(data))


class _Cursor:
    """A position in a binary file; reading past the end raises FileFormatError."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, layout: str) -> tuple:  # type: ignore[type-arg]
        start = self._advance(struct.calcsize(layout))
        return struct.unpack_from(layout, self.data, start)

    def take_rows(self, dtype: np.dtype, count: int) -> np.ndarray:
        start = self._advance(count * dtype.itemsize)
        return np.frombuffer(self.data, dtype, count, start)

    def take_name(self) -> str:
        end = self.data.find(b"\0", self.position)
        if end < 0:
            raise FileFormatError(f"byte {self.position}: an unterminated name; the file is truncated")
        start, self.position = self.position, end + 1
        return self.data[start:end].decode()

    def skip(self, num_bytes: int) -> None:
        self._advance(num_bytes)

    def _advance(self, num_bytes: int) -> int:
        start = self.position
        if num_bytes > len(self.data) - start:
            raise FileFormatError(
                f"byte {start}: {num_bytes:,} bytes should follow, {len(self.data) - start:,} do; "
                "the file is truncated, or its counts are wrong"
            )
        self.position += num_bytes
        return start


def _binary_cameras(data: bytes) -> Iterator[tuple[int, ColmapCamera]]:
    cursor = _Cursor(data)
    for _ in range(cursor.take("<Q")[0]):
        start = cursor.position
        camera, model, width, height = cursor.take("<iiQQ")
        if not 0 <= model < len(MODELS):
            raise FileFormatError(f"byte {start}: camera model number {model} is unknown")
        name, count = MODELS[model]
        yield camera, ColmapCamera(name, width, height, cursor.take(f"<{count}d"))


def _binary_images(data: bytes) -> Iterator[ColmapImage]:
    cursor = _Cursor(data)
    for _ in range(cursor.take("<Q")[0]):
        _, *pose, camera = cursor.take("<i7di")
        name = cursor.take_name()
        points = cursor.take_rows(OBSERVATION, cursor.take("<Q")[0])["point"]
        yield ColmapImage(name, tuple(pose[:4]), tuple(pose[4:]), camera, points[points >= 0])


def _binary_points(data: bytes) -> Iterator[tuple[float, ...]]:
    cursor = _Cursor(data)
    for _ in range(cursor.take("<Q")[0]):
        *values, num_views = cursor.take("<Q3d3BdQ")
        cursor.skip(num_views * TRACK_ELEMENT)
        yield (*values, num_views)


def _text_lines(data: bytes) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(data.decode().splitlines(), start=1):
        if not line.lstrip().startswith("#"):
            yield number, line.split()


def _text_cameras(data: bytes) -> Iterator[tuple[int, ColmapCamera]]:
    for number, values in _text_lines(data):
        if values:
            _require_values(number, values, 5)
            camera, model, width, height, *parameters = values
            yield (
                int(camera),
                ColmapCamera(model, int(width), int(height), tuple(map(float, parameters))),
            )


def _text_images(data: bytes) -> Iterator[ColmapImage]:
    """Read two lines per image; the second, its points, may be empty, or missing in files written by hand."""
    lines = list(_text_lines(data))
    index = 0
    while index < len(lines):
        number, values = lines[index]
        index += 1
        if not values:
            continue
        _require_values(number, values, 10)
        numbers = tuple(map(float, values[1:8]))
        observations: list[str] = []
        if index < len(lines) and not _is_image(lines[index][1]):
            observations = lines[index][1]
            index += 1
        points = np.array(observations[2::3], np.int64)
        name = " ".join(values[9:])
        yield ColmapImage(name, numbers[:4], numbers[4:], int(values[8]), points[points >= 0])


def _is_image(values: list[str]) -> bool:
    """Return whether a line describes an image: points have numbers only, where an image has its name."""
    return len(values) >= 10 and not all(map(is_number, values[9:]))


def _text_points(data: bytes) -> Iterator[tuple[float, ...]]:
    for number, values in _text_lines(data):
        if values:
            _require_values(number, values, 8)
            yield (int(values[0]), *map(float, values[1:8]), (len(values) - 8) // 2)


def _require_values(number: int, values: list[str], count: int) -> None:
    if len(values) < count:
        raise FileFormatError(
            f"line {number}: expected at least {count} values, got {len(values)}; the file is truncated"
        )


def _points(rows: list[tuple[float, ...]]) -> ColmapPoints:
    """Return the points whose numbers are finite in single precision."""
    ids = np.array([row[0] for row in rows], np.int64)
    table = np.array([row[1:] for row in rows], np.float64).reshape(-1, 8)
    finite = np.isfinite(table.astype(np.float32)).all(axis=1)
    ids, table = ids[finite], table[finite]
    return ColmapPoints(ids, table[:, :3], table[:, 3:6], table[:, 6], table[:, 7].astype(np.int64))


BINARY = {"cameras": _binary_cameras, "images": _binary_images, "points3D": _binary_points}
TEXT = {"cameras": _text_cameras, "images": _text_images, "points3D": _text_points}


def find_models(scene_folder: Path) -> list[Path]:
    """List the folders of models in a scene's folder."""
    roots = [scene_folder / "sparse", scene_folder / "colmap" / "sparse", scene_folder]
    candidates = [folder for root in roots if root.is_dir() for folder in (root, *sorted(root.iterdir()))]
    found = [folder for folder in candidates if _is_model(folder)]
    return list(dict.fromkeys(found))


def _is_model(folder: Path) -> bool:
    return any(
        all((folder / f"{name}{suffix}").is_file() for name in ("cameras", "images"))
        for suffix in (".bin", ".txt")
    )


def largest_model(scene_folder: Path) -> tuple[Path, int]:
    """Return the model with the most images, and the number of models."""
    models = find_models(scene_folder)
    if not models:
        raise MissingFileError(f"{scene_folder}: no COLMAP model (cameras and images, .bin or .txt)")
    return max(models, key=count_images) if len(models) > 1 else models[0], len(models)
