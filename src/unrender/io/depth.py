"""Depth images, and their unprojection to points in the camera frame: +x right, +y down, +z forward."""

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize, pad

from unrender._checked import checked
from unrender._struct import TensorStruct
from unrender.errors import FileFormatError, InputError
from unrender.geometry.points import PointCloud
from unrender.io.arrays import array_from_npy
from unrender.io.exr import read_exr
from unrender.io.files import FilePath, read_bytes, reading
from unrender.io.formats import known_suffix
from unrender.io.geometry_data import Floats
from unrender.io.images import load_mask, open_image
from unrender.io.pfm import read_pfm

if TYPE_CHECKING:
    from PIL.Image import Image

MILLIMETERS = 1e-3
MIN_DEPTH, MAX_DEPTH = 1e-15, 1e15
"""Depths beyond are missing: their products and quotients would not be finite in single precision."""
DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".exr", ".pfm")
MAX_WINDOW_SAMPLES = 5
"""Maximum number of pixels sampled along each axis of a window."""
MAX_SLOPE = 3.0
"""Maximum depth change per lateral distance within a surface: 72 degrees of inclination."""
DEPTH_NOISE = 0.005
"""Difference between neighboring depths attributed to noise, as a fraction of the depth."""


class DepthPoints(TensorStruct):
    """The points of a depth image, in the camera frame."""

    points: Float[Tensor, "*batch height width 3"]
    normals: Float[Tensor, "*batch height width 3"]
    """Unit normals towards the camera; zero for invalid pixels."""
    valid: Bool[Tensor, "*batch height width"]
    """Pixels that measure a surface: depth is present, and supported by neighbors (no flying pixels)."""


@dataclasses.dataclass(frozen=True)
class DepthFile:
    """The depth image of a frame."""

    path: Path
    scale: float
    """World units per unit of the file; for inverted depth, the depth range."""
    kind: Literal["z", "distance"] = "z"
    """Depth along the optical axis (z), or distance along the ray of each pixel."""
    is_assumed: bool = False
    """Whether the scale is the usual one for the format, and not stated anywhere; see `data.depth_units`."""
    inverted: bool = False
    """Whether 8-bit values v > 0 encode scale · (1 − v / 255), as in NeRF-synthetic."""

    def read(self) -> Floats:
        """Read depth or distance in world units; 0 for missing values."""
        if not self.inverted:
            depth = read_depth(self.path, self.scale)
            depth[depth < 0] = 0
            return depth
        data = read_bytes(self.path)
        with reading(self.path):
            values = _pixels(open_image(data, upright=False))
            if values.dtype != np.uint8:
                raise FileFormatError(f"inverted depth should have 8 bits per pixel, got {values.dtype}")
            first = values if values.ndim == 2 else values[..., 0]
            fraction: Floats = np.where(first > 0, 1 - first / 255, 0).astype(np.float32)
        return fraction * np.float32(self.scale)


def load_depth(
    path: FilePath,
    focal: float | tuple[float, float],
    center: tuple[float, float] | None = None,
    *,
    scale: float | None = None,
    mask: FilePath | None = None,
) -> PointCloud:
    """Load a depth image (png, tiff, npy, exr) as a point cloud with normals, in the camera frame.

    `focal` is in pixels, one number or (x, y). `center` is the principal point, with the center of the first pixel at
    (0.5, 0.5), half a pixel more than in OpenCV; the default is the image center. `scale` is meters per unit of the
    file; by default integers are millimeters, floats meters. `mask` is an image, black where points are excluded.
    Depths of 0, nan and inf are missing; flying pixels at depth discontinuities are removed.
    Raises `FileFormatError` if no pixel measures a surface.
    """
    depth = read_depth(path, scale)
    if mask is not None:
        depth = depth * (load_mask(mask, depth.shape) > 0)
    focal_xy = (focal, focal) if isinstance(focal, int | float) else focal
    center_xy = (depth.shape[1] / 2, depth.shape[0] / 2) if center is None else center
    top_left, depth = _crop(depth)
    pixels = points_from_depth(
        torch.from_numpy(depth),
        torch.tensor(focal_xy, dtype=torch.float32),
        torch.tensor(center_xy, dtype=torch.float32) - torch.tensor(top_left),
    )
    if not pixels.valid.any():
        raise FileFormatError(f"{path}: no pixel measures a surface")
    dropped = int((depth > 0).sum()) - int(pixels.valid.sum())
    if dropped:
        logging.getLogger("unrender").info("%s: removed %d pixels at depth discontinuities", path, dropped)
    return PointCloud(pixels.points[pixels.valid], pixels.normals[pixels.valid])


def _crop(depth: Floats) -> tuple[tuple[int, int], Floats]:
    """Crop to the bounding box of the measurements; return its top left corner (x, y), and the crop."""
    rows, columns = (np.flatnonzero((depth > 0).any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0:
        return (0, 0), depth
    cut = np.ascontiguousarray(depth[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return (int(columns[0]), int(rows[0])), cut


@checked
def points_from_depth(
    depth: Float[Tensor, "*batch height width"],
    focal: Float[Tensor, "*#batch 2"],
    center: Float[Tensor, "*#batch 2"],
    radius: int | None = None,
) -> DepthPoints:
    """Unproject depth images, X = z ((u − cₓ)/fₓ, (v − c_y)/f_y, 1), with pixel centers at +0.5, and estimate normals.

    On a plane, 1/z is linear in u and v, so that the normal follows from a least-squares fit of 1/z over the pixels
    within `radius` that lie on the same surface (default: 1/230 of the focal length, 1 to 6 pixels). A pixel is invalid
    if it has fewer of these neighbors than the corner of a square. Depths that are not finite or not positive, below
    1e-15 or above 1e15, are missing.
    Differentiable in: depth, focal, center.
    """
    if not (bool((focal > 0).all()) and bool(focal.isfinite().all() & center.isfinite().all())):
        raise InputError(f"points_from_depth: `focal` should be positive and finite, got {focal.tolist()}")
    measured = (depth > MIN_DEPTH) & (depth < MAX_DEPTH)
    z = torch.where(measured, depth, torch.ones_like(depth))
    rows, columns = (torch.arange(n, dtype=depth.dtype, device=depth.device) + 0.5 for n in depth.shape[-2:])
    u = columns - center[..., 0, None, None]
    v = rows[:, None] - center[..., 1, None, None]
    focal_x, focal_y = focal[..., 0, None, None], focal[..., 1, None, None]
    points = torch.stack([z * u / focal_x, z * v / focal_y, z], dim=-1)
    if radius is None:
        radius = min(max(round(float(focal.min()) / 230), 1), 6)
    level, du, dv, valid = _fit_inverse_depth(z, measured, focal.amin(-1)[..., None, None], radius)
    away = torch.stack([du * focal_x, dv * focal_y, level - du * u - dv * v], dim=-1)
    normals = normalize(-away, dim=-1)
    return DepthPoints(points * measured[..., None], normals * valid[..., None], valid)


def _fit_inverse_depth(
    z: Tensor, measured: Tensor, focal: Tensor, radius: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fit z / z' = level + a Δu + b Δv to the depths z' around each pixel; return level, a, b, and validity."""
    height, width = z.shape[-2:]
    padded, present = pad(z, [radius] * 4, value=1.0), pad(measured.to(z), [radius] * 4)
    offsets = sorted({round(float(x)) for x in np.linspace(-radius, radius, MAX_WINDOW_SAMPLES)})
    corner = (len(offsets) // 2 + 1) ** 2
    n = s_u = s_v = s_uu = s_uv = s_vv = s_q = s_uq = s_vq = torch.zeros_like(z)
    for dv in offsets:
        r_n = r_u = r_uu = r_q = r_uq = torch.zeros_like(z)
        for du in offsets:
            window = (..., slice(radius + dv, radius + dv + height), slice(radius + du, radius + du + width))
            other = padded[window]
            tolerance = MAX_SLOPE * max(abs(du), abs(dv)) / focal + DEPTH_NOISE
            weight = present[window] * ((other - z).abs() <= tolerance * z)
            ratio = torch.addcmul(-weight, weight, z / other)
            r_n, r_q = r_n + weight, r_q + ratio
            r_u, r_uu, r_uq = (
                r_u.add(weight, alpha=du),
                r_uu.add(weight, alpha=du * du),
                r_uq.add(ratio, alpha=du),
            )
        n, s_u, s_uu, s_q, s_uq = n + r_n, s_u + r_u, s_uu + r_uu, s_q + r_q, s_uq + r_uq
        s_v, s_vv = s_v.add(r_n, alpha=dv), s_vv.add(r_n, alpha=dv * dv)
        s_uv, s_vq = s_uv.add(r_u, alpha=dv), s_vq.add(r_q, alpha=dv)
    count = n.clamp(min=1)
    uu, uv, vv = s_uu - s_u * s_u / count, s_uv - s_u * s_v / count, s_vv - s_v * s_v / count
    uq, vq = s_uq - s_u * s_q / count, s_vq - s_v * s_q / count
    determinant = uu * vv - uv * uv
    valid = measured & (n >= corner) & (determinant > 0.5)
    scale = torch.where(valid, determinant, torch.ones_like(determinant))
    a, b = (vv * uq - uv * vq) / scale, (uu * vq - uv * uq) / scale
    return 1 + (s_q - a * s_u - b * s_v) / count, a, b, valid


def read_depth(path: FilePath, scale: float | None) -> Floats:
    """Read a depth image in meters, or in the units of `scale`; 0 for missing values."""
    suffix = known_suffix(path, DEPTH_SUFFIXES)
    data = read_bytes(path)
    with reading(path):
        values = _raw_depth(data, suffix)
        if values.ndim != 2 or values.size == 0:
            raise FileFormatError(f"a depth image should have one channel, got shape {list(values.shape)}")
        if values.dtype.itemsize == 1 and scale is None:
            raise FileFormatError(
                "8-bit depth cannot be in millimeters; give a depth scale, in world units per unit of the file"
            )
    if scale is None:
        scale = MILLIMETERS if values.dtype.kind in "iu" else 1.0
        kind = "integers are taken as millimeters" if scale == MILLIMETERS else "floats are taken as meters"
        logging.getLogger("unrender").info("%s: %s; give a depth scale if that is wrong", path, kind)
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"{path}: `scale` should be positive and finite, got {scale}")
    with np.errstate(over="ignore"):
        depth: Floats = (values.astype(np.float64) * scale).astype(np.float32)
    if not (depth > 0).any() and (depth < 0).any() and depth[depth < 0].std() > 0:
        raise FileFormatError(
            f"{path}: all depths are negative; they should be positive in front of the camera: negate them"
        )
    size = np.abs(depth)
    depth[~((size > MIN_DEPTH) & (size < MAX_DEPTH))] = 0
    return depth


def _raw_depth(data: bytes, suffix: str) -> Floats:
    if suffix == ".exr":
        return read_exr(data)
    if suffix == ".pfm":
        return read_pfm(data)
    if suffix == ".npy":
        values = array_from_npy(data)
        return values.squeeze() if values.ndim > 2 else values
    return _pixels(open_image(data))


def _pixels(image: "Image") -> Floats:
    return np.asarray(image.convert("RGB") if image.mode == "P" else image)
