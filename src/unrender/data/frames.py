"""Frames: the images of a scene with their cameras, loaded on demand."""

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender._struct import TensorStruct
from unrender.data.object_masks import load_used_pixels
from unrender.errors import FileFormatError
from unrender.geometry.camera import Camera
from unrender.geometry.points import PointCloud
from unrender.geometry.world_origin import WorldOrigin, camera_to_local, to_local
from unrender.io.depth import DepthFile
from unrender.io.files import read_bytes, reading
from unrender.io.geometry_data import Floats
from unrender.io.images import (
    ASPECT_TOLERANCE,
    image_size,
    normalize_pixels,
    open_image,
    oriented_image_size,
    pixels_from_image,
    resample_nearest,
)
from unrender.render.depth import z_per_distance

Item = TypeVar("Item")
Split = Literal["train", "val", "test"]
MAX_COORDINATE = 1e15
"""Largest coordinate of a pose, so that products of coordinates are finite in single precision."""
RIGID_TOLERANCE = 1e-3
"""Largest deviation of RᵀR from the identity that counts as rounding."""
TEST_EVERY = 8
"""Without given splits, every 8th frame by name is a test frame, as is usual for LLFF."""


class View(TensorStruct):
    """The loaded images of a frame."""

    image: Float[Tensor, "height width 3"]
    """RGB in [0, 1], with straight (not premultiplied) alpha."""
    alpha: Float[Tensor, "height width"] | None = None
    """Coverage of each pixel, in [0, 1]."""
    mask: Bool[Tensor, "height width"] | None = None
    """Pixels to use; None for all."""
    depth: Float[Tensor, "height width"] | None = None
    """z in world units, or the distance of equirectangular cameras; 0 where it is unknown."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """One image of a scene: its files, camera and split."""

    name: str
    """Path of the image within the scene."""
    camera: Camera
    image_path: Path
    split: Split = "train"
    mask_path: Path | None = None
    """An image that is black at pixels to ignore."""
    depth_file: DepthFile | None = None
    ignored_path: Path | None = None
    """An image that is white at pixels to ignore, such as instant-ngp's masks of moving objects."""
    near: float | None = None
    """Depth of the nearest surface, in world units; None if unknown."""
    far: float | None = None
    """Depth of the farthest surface, in world units; None if unknown."""
    points: Float[Tensor, "points 3"] | None = None
    """Measured points in world coordinates that are visible in the image: sparse depth."""

    def load(self) -> View:
        """Load the image, its mask and its depth."""
        return self.load_image().replace(depth=self.load_depth())

    def load_image(self) -> View:
        """Load the image and its mask, not its depth; EXIF orientation is applied if the camera's size needs it."""
        values = torch.from_numpy(normalize_pixels(self.load_pixels()))
        mask = self.load_mask()
        return View(
            values[..., :3],
            values[..., 3] if values.shape[-1] == 4 else None,
            None if mask is None else torch.from_numpy(mask),
        )

    def load_pixels(self) -> Floats:
        """Load RGB or RGBA as bytes, and gray images of more than 8 bits as RGB in [0, 1]."""
        data = read_bytes(self.image_path)
        with reading(self.image_path):
            image = open_image(data, upright=False)
            if (image.height, image.width) != (self.camera.height, self.camera.width):
                image = open_image(data)
            pixels: Floats = pixels_from_image(image)
            self._check_size("an image", pixels.shape)
        return pixels

    def load_mask(self) -> Floats | None:
        """Load the pixels to use, as booleans."""
        shape = (self.camera.height, self.camera.width)
        used = None if self.mask_path is None else load_used_pixels(self.mask_path, shape)
        if self.ignored_path is None:
            return used
        kept = ~load_used_pixels(self.ignored_path, shape)
        return kept if used is None else used & kept

    @property
    def has_mask(self) -> bool:
        """Whether pixels of the image may have to be ignored."""
        return self.mask_path is not None or self.ignored_path is not None

    def load_depth(self) -> Float[Tensor, "height width"] | None:
        """Load depth in world units, 0 where it is unknown; None if there is no depth image. See `View.depth`."""
        file = self.depth_file
        if file is None:
            return None
        return self._read_depth(file) * (self._z_per_distance() if file.kind == "distance" else 1)

    def load_distance(self) -> Float[Tensor, "height width"]:
        """Load distances along the pixels' rays, in world units; 0 where unknown, everywhere if there is no depth."""
        file = self.depth_file
        if file is None:
            return torch.zeros(self.camera.height, self.camera.width)
        depth = self._read_depth(file)
        if file.kind == "distance":
            return depth
        z_per_distance = self._z_per_distance()
        return torch.where(z_per_distance > 0, depth / z_per_distance, 0)

    def _read_depth(self, file: DepthFile) -> Tensor:
        """Load a depth image, resampled to the size of the photo by nearest neighbor."""
        values = file.read()
        with reading(file.path):
            return torch.from_numpy(
                resample_nearest(
                    values, (self.camera.height, self.camera.width), "a depth image", "its camera"
                )
            )

    def _z_per_distance(self) -> Tensor:
        """Return the cosine of each pixel's ray to the optical axis: z per distance; 0 where there is no ray."""
        return z_per_distance(self.camera)

    def _check_size(self, kind: str, shape: tuple[int, ...]) -> None:
        size = (self.camera.height, self.camera.width)
        if shape[:2] != size:
            raise FileFormatError(f"{kind} of {list(shape[:2])} pixels, but its camera has {list(size)}")


@dataclasses.dataclass(frozen=True)
class ParsedScene:
    """The content of a scene's files, as a reader returns it: poses and points in float64 and world coordinates."""

    name: str
    folder: Path
    frames: Sequence[Frame]
    has_splits: bool = False
    bounds: Tensor | None = None
    missing: Sequence[str] = ()
    without_pose: Sequence[str] = ()
    points: PointCloud | None = None
    notes: Sequence[str] = ()

    def to_local(self, origin: WorldOrigin) -> Self:
        """Return the scene relative to an origin, in float32; before, its poses and points are in float64."""
        shift = torch.tensor(origin, dtype=torch.float64)
        return dataclasses.replace(
            self,
            frames=[frame_to_local(frame, origin) for frame in self.frames],
            bounds=None if self.bounds is None else (self.bounds.double() - shift).float(),
            points=None
            if self.points is None
            else self.points.replace(points=self.points.points.double() - shift).to(torch.float32),
        )


def frame_to_local(frame: Frame, origin: WorldOrigin) -> Frame:
    """Return a frame whose camera and points are relative to an origin, in float32."""
    points = None if frame.points is None else to_local(frame.points, origin)
    return dataclasses.replace(frame, camera=camera_to_local(frame.camera, origin), points=points)


def evenly_spaced(items: Sequence[Item], count: int | None) -> list[Item]:
    """Choose `count` items at equal distances; all of them if there are no more, or for None."""
    if count is None or count >= len(items):
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def frames_fingerprint(frames: Iterable[Frame]) -> str:
    """Tell scenes with other frames, or frames with other cameras, apart."""
    digest = hashlib.sha256()
    for frame in frames:
        ignored, depth, points = frame.ignored_path, frame.depth_file, frame.points
        for text in (
            f"{frame.name} {frame.split} {frame.camera.height} {frame.camera.width}",
            f"{frame.camera.lens} {frame.mask_path and frame.mask_path.name}",
            "" if ignored is None else ignored.name,
            f"{depth and depth.scale} {points is not None and len(points)}",
        ):
            digest.update(text.encode(errors="backslashreplace"))  # names of files need not be Unicode
        for tensor in (frame.camera.camera_from_world, frame.camera.focal, frame.camera.center):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def split_frames(frames: Iterable[Frame], test_every: int = TEST_EVERY) -> tuple[Frame, ...]:
    """Sort frames by name and assign every `test_every`-th, from the first on, to the test split.

    A single frame is for training.
    """
    by_name = sorted(frames, key=lambda frame: frame.name)
    is_test = [i % test_every == 0 and len(by_name) > 1 for i in range(len(by_name))]
    return tuple(
        dataclasses.replace(frame, split="test" if test else "train")
        for frame, test in zip(by_name, is_test, strict=True)
    )


def rigid_pose(name: str, pose: object) -> tuple[Tensor, bool]:
    """Check a 3 × 4 or 4 × 4 pose; return it as a rigid 4 × 4 matrix, and whether it was orthonormalized.

    Rounding errors are removed. Scaled, mirrored and non-finite poses are refused: their intent is unknown.
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
    if np.abs(matrix).max() > MAX_COORDINATE:
        raise FileFormatError(
            f"frame {name}: its pose has numbers up to {np.abs(matrix).max():.3g}; leave the frame out"
        )
    if len(matrix) == 4 and np.abs(matrix[3] - [0, 0, 0, 1]).max() > RIGID_TOLERANCE:
        raise FileFormatError(
            f"frame {name}: the last row of its pose should be 0 0 0 1, got {matrix[3].tolist()}"
        )
    deviation = np.abs(matrix[:3, :3].T @ matrix[:3, :3] - np.eye(3)).max()
    if deviation > RIGID_TOLERANCE:
        lengths = np.linalg.norm(matrix[:3, :3], axis=0)
        if np.ptp(lengths) > RIGID_TOLERANCE * lengths.max():
            problem = f"is not a rotation: its columns have lengths {', '.join(f'{x:.4g}' for x in lengths)}"
        elif abs(lengths.mean() - 1) > RIGID_TOLERANCE:
            problem = f"is scaled by {lengths.mean():.4g}; divide its first three columns by that"
        else:
            problem = "is not a rotation: its columns are not perpendicular"
        raise FileFormatError(f"frame {name}: its pose {problem}")
    if np.linalg.det(matrix[:3, :3]) < 0:
        raise FileFormatError(f"frame {name}: its pose is left-handed (a mirror); negate one axis")
    rigid = np.eye(4)
    left, _, right = np.linalg.svd(matrix[:3, :3])
    rigid[:3, :3], rigid[:3, 3] = left @ right, matrix[:3, 3]
    return torch.from_numpy(rigid), bool(deviation > 1e-5)


def fit_camera_to_image(camera: Camera, path: Path, name: str) -> tuple[Camera, str | None]:
    """Resize a camera to its image, as stored or rotated upright by EXIF, and return a note if it was resized.

    Raises FileFormatError if the aspect ratios differ.
    """
    size = (camera.height, camera.width)
    sizes = [image_size(path)]
    if size == sizes[0]:
        return camera, None
    sizes.append(oriented_image_size(path))
    if size == sizes[1]:
        return camera, None
    for other in sizes:
        if abs(other[0] * size[1] / (other[1] * size[0]) - 1) <= ASPECT_TOLERANCE:
            note = (
                f"cameras of {size[1]} × {size[0]} pixels were resized to images of {other[1]} × {other[0]}"
            )
            return camera.resize(*other), note
    raise FileFormatError(
        f"frame {name}: the image has {sizes[0][1]} × {sizes[0][0]} pixels, its camera {size[1]} × {size[0]}; "
        "the image was cropped or rotated after camera calibration"
    )


def place_camera(camera: Camera, world_from_camera: Float[Tensor, "4 4"]) -> Camera:
    """Return a camera of float32 intrinsics at a float64 pose in OpenGL's convention, which stays in float64."""
    posed = Camera.from_opengl(world_from_camera, 1.0, height=1, width=1)
    return camera.replace(camera_from_world=posed.camera_from_world)


def check_intrinsics(name: str, camera: Camera) -> Camera:
    """Return a camera; FileFormatError if its focal length, center or lens is out of range in its precision."""
    lens = (
        () if camera.lens is None else (camera.lens.radial, camera.lens.tangential, camera.lens.denominator)
    )
    finite = all(bool(values.isfinite().all()) for values in (camera.focal, camera.center, *lens))
    if not finite or not bool((camera.focal > 0).all()):
        raise FileFormatError(
            f"frame {name}: its focal lengths {camera.focal.tolist()}, center {camera.center.tolist()} or lens are out "
            "of range"
        )
    return camera


def number(values: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    """Return a finite number of a table from a file."""
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        missing = key not in values
        raise FileFormatError(
            f"{where}: {key!r} is missing"
            if missing
            else f"{where}: {key!r} should be a number, got {value!r}"
        )
    return float(value)
