"""Frames: pictures of one scene, each with its camera, read when they are needed."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender._struct import TensorStruct
from unrender.errors import FileFormatError
from unrender.geometry.camera import Camera
from unrender.geometry.points import PointCloud
from unrender.geometry.rays import rays_of
from unrender.io.depth import DepthFile
from unrender.io.files import is_file, read_bytes, reading
from unrender.io.geometry_data import Floats
from unrender.io.images import (
    IMAGE_SUFFIXES,
    image_size,
    load_mask,
    normalize_pixels,
    open_image,
    oriented_image_size,
    pixels_from_image,
)

Split = Literal["train", "val", "test"]
NEARLY_RIGID = 1e-3
"""How far RᵀR may be from the identity, in a pose that was rounded."""
TEST_EVERY = 8
"""Where a scene does not say which frames are for tests, every 8th by name is, as for LLFF."""
SAME_SHAPE = 0.01
"""How far the ratio of sides of a picture may be from its camera's, relatively, in a picture that was scaled."""


class View(TensorStruct):
    """What a frame shows."""

    image: Float[Tensor, "height width 3"]
    """RGB in [0, 1], not multiplied by alpha."""
    alpha: Float[Tensor, "height width"] | None = None
    """Share of each pixel that is covered, in [0, 1]."""
    mask: Bool[Tensor, "height width"] | None = None
    """Which pixels to use; all, if there is none."""
    depth: Float[Tensor, "height width"] | None = None
    """z in world units; 0 where it is unknown."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """One picture of a scene: where its files are, and where its camera stood."""

    name: str
    """The picture's path within the scene."""
    camera: Camera
    image_path: Path
    split: Split = "train"
    mask_path: Path | None = None
    """A picture that is black where pixels are not to be used."""
    depth_file: DepthFile | None = None
    near: float | None = None
    """Depth before which nothing is, in world units; None where the scene does not say."""
    far: float | None = None
    """Depth behind which nothing is."""
    points: Float[Tensor, "points 3"] | None = None
    """Places in the world that were measured, and that the picture shows: depth, though sparse."""

    def load(self) -> View:
        """Read the image, its mask and its depth."""
        return self.load_image().replace(depth=self._load_depth())

    def load_image(self) -> View:
        """Read the image and its mask, not its depth. EXIF orientation is applied only if the camera's size has it."""
        values = torch.from_numpy(normalize_pixels(self.load_pixels()))
        mask = self.load_mask()
        return View(
            values[..., :3],
            values[..., 3] if values.shape[-1] == 4 else None,
            None if mask is None else torch.from_numpy(mask),
        )

    def load_pixels(self) -> Floats:
        """Read RGB or RGBA as bytes; grey of more than 8 bits as RGB in [0, 1]."""
        data = read_bytes(self.image_path)
        with reading(self.image_path):
            picture = open_image(data, upright=False)
            if (picture.height, picture.width) != (self.camera.height, self.camera.width):
                picture = open_image(data)
            pixels: Floats = pixels_from_image(picture)
            self._check_size("a picture", pixels.shape)
        return pixels

    def load_mask(self) -> Floats | None:
        """Read which pixels are to be used."""
        if self.mask_path is None:
            return None
        return load_mask(self.mask_path, (self.camera.height, self.camera.width)) > 0.5

    def _load_depth(self) -> Tensor | None:
        """Read z."""
        file = self.depth_file
        if file is None:
            return None
        return self._read_depth(file) * (self._ahead() if file.kind == "distance" else 1)

    def load_distance(self) -> Float[Tensor, "height width"]:
        """Read how far along each pixel's ray it is, in world units; 0 where that is unknown, or all of it is."""
        file = self.depth_file
        if file is None:
            return torch.zeros(self.camera.height, self.camera.width)
        depth = self._read_depth(file)
        if file.kind == "distance":
            return depth
        ahead = self._ahead()
        return torch.where(ahead > 0, depth / ahead, 0)

    def _read_depth(self, file: DepthFile) -> Tensor:
        """Read a depth picture; one that is smaller or larger than the photo is looked up at the nearest pixels."""
        values, height, width = file.read(), self.camera.height, self.camera.width
        if abs(values.shape[0] * width / (values.shape[1] * height) - 1) > SAME_SHAPE:
            with reading(file.path):
                self._check_size("a depth picture", values.shape)
        rows, columns = (
            ((np.arange(wanted) + 0.5) * has / wanted).astype(int)
            for wanted, has in zip((height, width), values.shape, strict=True)
        )
        return torch.from_numpy(values[rows[:, None], columns])

    def _ahead(self) -> Tensor:
        """Return how much z grows along each pixel's ray; 0 where there is no ray."""
        return (rays_of(self.camera).directions @ self.camera.camera_from_world[2, :3]).nan_to_num()

    def _check_size(self, what: str, shape: tuple[int, ...]) -> None:
        size = (self.camera.height, self.camera.width)
        if shape[:2] != size:
            raise FileFormatError(f"{what} of {list(shape[:2])} pixels, where its camera has {list(size)}")


@dataclasses.dataclass(frozen=True)
class FoundScene:
    """What the reader of one format found."""

    name: str
    folder: Path
    frames: Sequence[Frame]
    has_splits: bool = False
    bounds: Tensor | None = None
    missing: Sequence[str] = ()
    without_pose: Sequence[str] = ()
    points: PointCloud | None = None
    notes: Sequence[str] = ()


def hold_out(frames: Iterable[Frame], step: int = TEST_EVERY) -> tuple[Frame, ...]:
    """Sort frames by name, and make every `step`-th a test, from the first on; a single one is for training."""
    in_order = sorted(frames, key=lambda frame: frame.name)
    is_test = [i % step == 0 and len(in_order) > 1 for i in range(len(in_order))]
    return tuple(
        dataclasses.replace(frame, split="test" if chosen else "train")
        for frame, chosen in zip(in_order, is_test, strict=True)
    )


def find_picture(folder: Path, listed: str) -> Path | None:
    """Find a listed picture, whose suffix may be left out."""
    path = folder / listed
    if is_file(path):
        return path
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return None
    candidates = (path.with_name(path.name + suffix) for suffix in IMAGE_SUFFIXES)
    return next((candidate for candidate in candidates if is_file(candidate)), None)


def rigid_pose(name: str, pose: object) -> tuple[Tensor, bool]:
    """Check a pose of 3 × 4 or 4 × 4 numbers; return it as 4 × 4, rigid, and whether it had to be made so.

    Rounding is put right. What is scaled, mirrored or not finite is refused: only its author knows what was meant.
    """
    try:
        matrix = np.array(pose, np.float64)
    except (ValueError, TypeError) as error:
        raise FileFormatError(
            f"frame {name}: its pose should be 4 × 4 numbers, got {str(pose)[:60]}"
        ) from error
    if matrix.shape not in ((3, 4), (4, 4)):
        raise FileFormatError(f"frame {name}: its pose should be 4 × 4 numbers, got {list(matrix.shape)}")
    if not np.isfinite(matrix).all():
        raise FileFormatError(f"frame {name}: its pose is not finite; leave the frame out")
    if len(matrix) == 4 and np.abs(matrix[3] - [0, 0, 0, 1]).max() > NEARLY_RIGID:
        raise FileFormatError(
            f"frame {name}: the last row of its pose should be 0 0 0 1, got {matrix[3].tolist()}"
        )
    deviation = np.abs(matrix[:3, :3].T @ matrix[:3, :3] - np.eye(3)).max()
    if deviation > NEARLY_RIGID:
        lengths = np.linalg.norm(matrix[:3, :3], axis=0)
        same = np.ptp(lengths) <= NEARLY_RIGID * lengths.max()
        what = (
            f"is scaled by {lengths.mean():.4g}; divide its first three columns by that"
            if same
            else f"is no rotation: its columns have lengths {', '.join(f'{x:.4g}' for x in lengths)}"
        )
        raise FileFormatError(f"frame {name}: its pose {what}")
    if np.linalg.det(matrix[:3, :3]) < 0:
        raise FileFormatError(f"frame {name}: its pose is left-handed (a mirror); negate one axis")
    rigid = np.eye(4)
    left, _, right = np.linalg.svd(matrix[:3, :3])
    rigid[:3, :3], rigid[:3, 3] = left @ right, matrix[:3, 3]
    return torch.from_numpy(rigid), bool(deviation > 1e-5)


def fit_to_picture(camera: Camera, path: Path, name: str) -> tuple[Camera, str | None]:
    """Scale a camera to the size of its picture, as stored or turned upright; refuse a picture of another shape."""
    size = (camera.height, camera.width)
    sizes = [image_size(path)]
    if size == sizes[0]:
        return camera, None
    sizes.append(oriented_image_size(path))
    if size == sizes[1]:
        return camera, None
    for other in sizes:
        if abs(other[0] * size[1] / (other[1] * size[0]) - 1) <= SAME_SHAPE:
            note = (
                f"cameras of {size[1]} × {size[0]} pixels were scaled to pictures of {other[1]} × {other[0]}"
            )
            return camera.resize(*other), note
    raise FileFormatError(
        f"frame {name}: the picture is {sizes[0][1]} wide and {sizes[0][0]} high, its camera {size[1]} and {size[0]}; "
        "the picture was cropped or turned after its camera was found"
    )


def number(values: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    """Take a finite number from a file's table."""
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        missing = key not in values
        raise FileFormatError(
            f"{where}: {key!r} is missing"
            if missing
            else f"{where}: {key!r} should be a number, got {value!r}"
        )
    return float(value)
