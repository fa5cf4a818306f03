"""Photos: an image of one object with its camera, mask and depth."""

import math
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrender._struct import TensorStruct
from unrender.data.box_segmentation import Box, checked_box, segment_box
from unrender.data.object_masks import load_object_mask, unknown_pixels
from unrender.data.segmentation import segment_object
from unrender.errors import InputError
from unrender.geometry.camera import Camera
from unrender.io.depth import read_depth
from unrender.io.files import FilePath, read_bytes, reading
from unrender.io.formats import known_suffix
from unrender.io.geometry_data import Floats
from unrender.io.images import IMAGE_SUFFIXES, colors_from_image, load_mask, open_image, resample_nearest

if TYPE_CHECKING:
    from PIL.Image import Image

FULL_FRAME_DIAGONAL = math.hypot(36.0, 24.0)
"""Diagonal of a 35 mm frame in millimeters: 43.27."""
MILLIMETERS_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""EXIF's FocalPlaneResolutionUnit: inch, centimeter, millimeter, micrometer."""
EXIF_CAMERA = 0x8769
EXIF_WIDTH, EXIF_HEIGHT = 0xA002, 0xA003
EXIF_FOCAL, EXIF_FOCAL_35MM = 0x920A, 0xA405
EXIF_RESOLUTION, EXIF_RESOLUTION_UNIT = 0xA20E, 0xA210


class Photo(TensorStruct):
    """An image of one object. The world frame is the camera frame, so estimated poses are `camera_from_object`."""

    image: Float[Tensor, "height width 3"]
    """RGB in [0, 1]."""
    mask: Float[Tensor, "height width"]
    """Fraction of each pixel that the object covers, in [0, 1]."""
    camera: Camera
    """Its pose is the identity."""
    depth: Float[Tensor, "height width"] | None = None
    """z-depth in world units; 0 where unknown."""
    ignore: Float[Tensor, "height width"] | None = None
    """1 where it is unknown what the object covers, such as at occluders; 0 elsewhere."""

    def __post_init__(self) -> None:
        super().__post_init__()
        size = (self.camera.height, self.camera.width)
        if self.image.shape[:2] != size:
            raise InputError(
                f"Photo: an image of {list(self.image.shape[:2])} and a camera of {list(size)} pixels"
            )
        if not torch.equal(self.camera.camera_from_world, torch.eye(4).to(self.camera.camera_from_world)):
            raise InputError(
                "Photo: the pose of `camera` should be the identity: the world frame is the camera frame"
            )
        if self.camera.lens is not None:
            raise InputError("Photo: `camera` should have no lens; undistort the image first")
        if not bool(self.image.isfinite().all()):
            raise InputError("Photo: `image` should be finite")
        if not bool(((self.mask >= 0) & (self.mask <= 1)).all()):
            raise InputError("Photo: `mask` should lie in [0, 1]")
        if not bool((self.mask > 0.5).any()):
            raise InputError("Photo: no object in the image: no pixel of the mask is above 0.5")
        if self.depth is not None and not bool((self.depth.isfinite() & (self.depth >= 0)).all()):
            raise InputError("Photo: `depth` should be finite, and 0 where it is unknown")
        if self.ignore is not None and not bool(((self.ignore >= 0) & (self.ignore <= 1)).all()):
            raise InputError("Photo: `ignore` should lie in [0, 1]")


def load_photo(
    path: FilePath,
    *,
    intrinsics: tuple[float, float, float, float] | None = None,
    fov_degrees: float | None = None,
    mask: FilePath | None = None,
    mask_id: int | None = None,
    depth: FilePath | None = None,
    depth_scale: float | None = None,
    ignore: FilePath | None = None,
    box: tuple[float, float, float, float] | None = None,
) -> Photo:
    """Load a photo of one object, upright, with its camera and mask.

    intrinsics: focal lengths and principal point (fx, fy, cx, cy) in pixels of the upright image, where the first
    pixel's center is at (0.5, 0.5), half a pixel more than in OpenCV. fov_degrees: instead, the vertical field of
    view. Without both, the focal length comes from EXIF: the 35 mm equivalent, assuming equal diagonals (43.27 mm), or
    that in millimeters with the resolution of the focal plane; pixels are square, the principal point is the center.

    mask: an image, white on the object, black elsewhere, gray for partial coverage. Without it, the mask is the alpha
    channel, or segmented against a plain background, which may have gradients and noise. mask_id: the object's value in
    a mask with one value per object. A mask or depth image of another size is resampled to the nearest pixels.

    depth: a depth image (png, tif, npy); integers are millimeters and converted to meters, floats are kept,
    unless `depth_scale` gives world units per unit of the file. 0, nan and inf are unknown.

    ignore: an image, white where coverage is unknown, as at an object in front; so is 128 in a mask of 0, 128, 255.

    box: instead of a mask, the box around the visible part of the object: left, top, right, bottom in pixels. The mask
    separates the colors inside from those around; what the object covers outside of the box is unknown.
    """
    known_suffix(path, IMAGE_SUFFIXES)
    if depth_scale is not None and depth is None:
        raise InputError(f"load_photo: {path}: `depth_scale` without `depth`; give both or neither")
    data = read_bytes(path)
    with reading(path):
        image = open_image(data)
        focal_of_exif = _focal_from_exif(image)
        colors = colors_from_image(image)
    del image, data  # 8k images take 130 MB
    shape = colors.shape[:2]
    focal, center = focal_and_center(f"load_photo: {path}", shape, intrinsics, fov_degrees, focal_of_exif)
    coverage, unknown = _coverage(path, colors, mask, mask_id, ignore, box)
    return Photo(
        torch.from_numpy(colors)[..., :3],
        torch.from_numpy(coverage),
        Camera(torch.tensor(focal), torch.tensor(center), torch.eye(4), *shape),
        None if depth is None else _depth(depth, depth_scale, shape),
        unknown,
    )


def _coverage(
    path: FilePath,
    colors: Floats,
    mask: FilePath | None,
    mask_id: int | None,
    ignore: FilePath | None,
    box: Box | None,
) -> tuple[Floats, Tensor | None]:
    """Return the coverage, from a mask, a box or the photo itself, and where it is unknown."""
    if box is not None and mask is not None:
        raise InputError(f"load_photo: {path}: give either `mask` or `box`, not both")
    if mask_id is not None and mask is None:
        raise InputError(f"load_photo: {path}: `mask_id` without `mask`; give both or neither")
    shape = colors.shape[:2]
    if box is not None:
        coverage = segment_box(colors, box)
    else:
        coverage = _load_coverage(path, colors) if mask is None else load_object_mask(mask, shape, mask_id)
    coverage, unknown = _without_unknown(coverage, ignore, may_be_trimap=mask is not None and mask_id is None)
    return coverage, unknown if box is None else _unknown_outside(box, shape, unknown)


def _without_unknown(
    coverage: Floats, ignore: FilePath | None, *, may_be_trimap: bool
) -> tuple[Floats, Tensor | None]:
    """Set unknown pixels of a mask to 0, and return 1 at them and 0 elsewhere, or None if all are known."""
    unknown = unknown_pixels(coverage) if may_be_trimap else None
    if ignore is not None:
        ignored = load_mask(ignore, coverage.shape)
        unknown = ignored if unknown is None else np.maximum(unknown, ignored)
    if unknown is None:
        return coverage, None
    return np.where(unknown > 0.5, 0, coverage).astype(np.float32), torch.from_numpy(unknown).float()


def _unknown_outside(
    box: tuple[float, float, float, float], shape: tuple[int, ...], unknown: Tensor | None
) -> Tensor:
    """Return 1 outside of a box and where it is unknown what the object covers, 0 elsewhere."""
    left, top, right, bottom = checked_box(box, shape)
    outside = torch.ones(shape)
    outside[top:bottom, left:right] = 0
    return outside if unknown is None else torch.maximum(outside, unknown)


def _load_coverage(path: FilePath, colors: Floats) -> Floats:
    """Return the alpha channel, or else segment the object against its background."""
    if colors.shape[-1] == 4 and colors[..., 3].min() < colors[..., 3].max():
        return colors[..., 3].copy()
    try:
        return segment_object(colors[..., :3])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _depth(path: FilePath, scale: float | None, shape: tuple[int, ...]) -> Tensor:
    depth = read_depth(path, scale)
    with reading(path):
        return torch.from_numpy(resample_nearest(depth.clip(min=0), shape, "the depth image", "the photo"))


def focal_and_center(
    where: str,
    shape: tuple[int, ...],
    intrinsics: tuple[float, float, float, float] | None,
    fov_degrees: float | None,
    focal_of_exif: float | None,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return focal lengths and principal point, x first, in pixels."""
    height, width = shape
    if intrinsics is not None and fov_degrees is not None:
        raise InputError(f"{where}: give either `intrinsics` or `fov_degrees`, not both")
    if intrinsics is not None:
        return _checked_intrinsics(where, intrinsics, height, width)
    focal = focal_of_exif if fov_degrees is None else _focal_from_fov(where, fov_degrees, height)
    if focal is None:
        raise InputError(
            f"{where}: no focal length in the file; give `intrinsics` (fx, fy, cx, cy) in pixels, "
            "or `fov_degrees`, the vertical field of view"
        )
    return (focal, focal), (width / 2, height / 2)


def _checked_intrinsics(
    where: str, intrinsics: tuple[float, float, float, float], height: int, width: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    if len(intrinsics) != 4 or not all(map(math.isfinite, intrinsics)) or min(intrinsics[:2]) <= 0:
        raise InputError(
            f"{where}: `intrinsics` should be fx, fy, cx, cy, finite and fx, fy positive, got {intrinsics}"
        )
    fx, fy, cx, cy = map(float, intrinsics)
    if not (-width <= cx <= 2 * width and -height <= cy <= 2 * height):
        raise InputError(
            f"{where}: the principal point ({cx:g}, {cy:g}) is far outside of an image of {width} × {height} pixels; "
            "`intrinsics` are in pixels of the upright image"
        )
    return (fx, fy), (cx, cy)


def _focal_from_fov(where: str, fov_degrees: float, height: int) -> float:
    if not 0 < fov_degrees < 180:
        raise InputError(f"{where}: `fov_degrees` should lie between 0 and 180, got {fov_degrees}")
    return height / 2 / math.tan(math.radians(fov_degrees / 2))


def _focal_from_exif(image: "Image") -> float | None:
    """Return the focal length in pixels; also for images that were rotated or resized as a whole."""
    tags = image.getexif().get_ifd(EXIF_CAMERA)
    focal_35mm, focal, resolution, wide, high = (
        _positive(tags.get(tag))
        for tag in (EXIF_FOCAL_35MM, EXIF_FOCAL, EXIF_RESOLUTION, EXIF_WIDTH, EXIF_HEIGHT)
    )
    if focal_35mm:
        return focal_35mm / FULL_FRAME_DIAGONAL * math.hypot(*image.size)
    unit = MILLIMETERS_PER_UNIT.get(tags.get(EXIF_RESOLUTION_UNIT, 2))
    if not (focal and resolution and unit):
        return None
    scale = max(image.size) / max(wide, high) if wide and high else 1.0
    return focal * resolution / unit * scale


def _positive(value: object) -> float:
    """Return the value of a tag, or 0 if it is not a positive number."""
    number = float(value) if isinstance(value, Real) else 0.0
    return number if 0 < number < math.inf else 0.0
