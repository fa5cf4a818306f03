"""Folders of depth maps: one per view, with all kinds of depth, metadata and a preview."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrender._version import __version__
from unrender.data.frames import rigid_pose
from unrender.data.nerfstudio import camera_from_table
from unrender.data.save_transforms import intrinsics_table, pose_table
from unrender.errors import FileFormatError, InputError, ShapeError
from unrender.geometry.camera import Camera
from unrender.geometry.world_origin import ZERO, WorldOrigin, camera_to_local, choose_origin
from unrender.io.arrays import array_from_npy
from unrender.io.depth import MILLIMETERS
from unrender.io.depth_preview import Colormap, depth_preview_image
from unrender.io.exr import write_exr
from unrender.io.files import (
    FilePath,
    MissingFileError,
    atomic_write,
    atomic_write_folder,
    read_bytes,
    reading,
)
from unrender.io.geometry_data import Floats, floats_from_tensor
from unrender.io.images import load_image, load_mask, save_image
from unrender.render.depth import DepthMap, DepthView

DepthFormat = Literal["png16", "exr", "tiff"]
DEPTH_MAPS = tuple(
    f"{kind}_{axis}" for kind in ("expected", "median", "first_surface") for axis in ("z", "distance")
)
OTHER_MAPS = ("opacity", "std", "confidence")
METADATA_FILE, VALID_FILE, COLOR_FILE = "depth.json", "valid.png", "color.png"
MAX_STEPS = 65535
"""Largest value of a 16-bit png."""


@dataclasses.dataclass(frozen=True)
class DepthFiles:
    """Additional formats of depth maps, and the color map of the preview."""

    formats: tuple[DepthFormat, ...] = ()
    """Written in addition to npy. png16: integer multiples of `scale`, as depth cameras write; exr, tiff: float32."""
    scale: float = MILLIMETERS
    """World units per step of a 16-bit png. Default: millimeters, if world units are meters."""
    colormap: Colormap = "viridis"
    """Color map of the preview. gray: dark is near, bright is far."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.formats if name not in get_args(DepthFormat)]
        if unknown or self.colormap not in get_args(Colormap):
            raise InputError(
                f"DepthFiles: `formats` are {', '.join(get_args(DepthFormat))}, `colormap` is one of "
                f"{', '.join(get_args(Colormap))}; got {', '.join(self.formats)} and {self.colormap}"
            )
        if not 0 < self.scale < math.inf:
            raise InputError(f"DepthFiles: `scale` should be positive and finite, got {self.scale}")


def save_depth(
    depth: DepthMap,
    folder: FilePath,
    files: DepthFiles = DepthFiles(),
    *,
    color: Float[Tensor, "height width 3"] | None = None,
    metadata: Mapping[str, Any] | None = None,
    origin: WorldOrigin = ZERO,
) -> None:
    """Save a depth map as a folder, atomically, and replace an existing one.

    `<kind>_z.npy` and `<kind>_distance.npy` (expected, median, first_surface), opacity.npy, std.npy, confidence.npy,
    all float32 and in world units; valid.png; preview.png, the median distance with a legend; color.png, if `color`
    is given; depth.json, with units, kinds, scale, intrinsics, pose, and `metadata`. Other formats have 0 at invalid
    pixels; in png, valid depths below one step are rounded up to it. The camera is relative to `origin`, its pose is
    saved in world coordinates. Raises InputError if a depth exceeds 16 bits.
    """
    valid = depth.valid.cpu().numpy()
    with atomic_write_folder(folder) as path:
        for name in (*DEPTH_MAPS, *OTHER_MAPS):
            values = floats_from_tensor(getattr(depth, name)).astype(np.float32)
            with atomic_write(path / f"{name}.npy") as file:
                np.save(file, values)
            if name in DEPTH_MAPS:
                for kind in files.formats:
                    _save_as(kind, np.where(valid, values, np.float32(0)), path / name, files.scale)
        save_image(depth.valid.float(), path / VALID_FILE)
        save_image(
            depth_preview_image(depth.median_distance, depth.valid, files.colormap), path / "preview.png"
        )
        if color is not None:
            save_image(color.detach().clamp(0, 1), path / COLOR_FILE)
        content = _metadata(depth, Path(folder).name, files, origin) | dict(metadata or {})
        with atomic_write(path / METADATA_FILE) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())


def _metadata(depth: DepthMap, name: str, files: DepthFiles, origin: WorldOrigin) -> dict[str, Any]:
    return {
        "unrender": __version__,
        "units": "world units of the scene",
        "kinds": {
            "expected": "mean distance, weighted by absorption",
            "median": "where half of the final opacity is reached",
            "first_surface": "where the accumulated opacity reaches a threshold",
        },
        "z": "along the optical axis",
        "distance": "along the pixel's ray",
        "invalid_value": 0,
        "formats": ["npy", *files.formats],
        "png_scale": files.scale if "png16" in files.formats else None,
        "valid_fraction": float(depth.valid.float().mean()),
        "camera": {
            **intrinsics_table(name, depth.camera),
            "transform_matrix": pose_table(depth.camera, origin),
        },
    }


def _save_as(kind: DepthFormat, values: Floats, stem: Path, scale: float) -> None:
    from PIL import Image

    if kind == "png16":
        with atomic_write(stem.with_suffix(".png")) as file:
            Image.fromarray(quantize_depth(values, scale)).save(file, "PNG")
    elif kind == "tiff":
        with atomic_write(stem.with_suffix(".tiff")) as file:
            Image.fromarray(values).save(file, "TIFF", compression="tiff_adobe_deflate")
    else:
        with atomic_write(stem.with_suffix(".exr")) as file:
            write_exr(file, values)


def quantize_depth(values: Floats, scale: float) -> Floats:
    """Return depths as 16-bit multiples of `scale`, positive where depth is; raise InputError on overflow."""
    steps = np.round(values.astype(np.float64) / scale)
    largest = float(values.max(initial=0))
    if steps.max(initial=0) > MAX_STEPS:
        raise InputError(
            f"save_depth: the largest depth, {largest:.6g}, is {largest / scale:.0f} steps of {scale:g}, and 16 bits "
            f"hold {MAX_STEPS}; give a scale of at least {largest / MAX_STEPS:.3g}"
        )
    quantized: Floats = np.where(values > 0, steps.clip(min=1), 0).astype(np.uint16)
    return quantized


def load_depth_views(folder: FilePath, *, origin: WorldOrigin = ZERO) -> dict[str, DepthView]:
    """Load depth maps that `save_depth` wrote, by name: the folder of one view, or a folder of several.

    Depth is the median z, 0 at invalid pixels; colors are loaded if they were saved. Cameras are relative to `origin`;
    `origin_of_depth_views` returns one for large coordinates.
    """
    return {path.parent.name: _load_view(path.parent, origin) for path in _metadata_files(folder)}


def origin_of_depth_views(folder: FilePath) -> WorldOrigin:
    """Return the origin for the cameras of depth maps: zero unless float32 is too coarse for their coordinates."""
    return choose_origin(torch.stack([_load_camera(path).position for path in _metadata_files(folder)]))


def _metadata_files(folder: FilePath) -> list[Path]:
    path = Path(folder)
    if not path.is_dir():
        raise MissingFileError(f"{path}: no such folder; expected the output of `unrender depth`")
    roots = [path / "depth", path]
    found = [p for root in roots for p in sorted(root.glob(f"*/{METADATA_FILE}"))] or list(
        path.glob(METADATA_FILE)
    )
    if not found:
        raise FileFormatError(f"{path}: no depth maps: no {METADATA_FILE} in this folder or its subfolders")
    return found


def _load_camera(path: Path) -> Camera:
    """Load a camera in world coordinates, its pose in float64."""
    data = read_bytes(path)
    with reading(path):
        table = {"file_path": path.parent.name, **json.loads(data)["camera"]}
        pose, _ = rigid_pose(path.parent.name, table["transform_matrix"])
        return camera_from_table(table, pose, path)


def _load_view(folder: Path, origin: WorldOrigin) -> DepthView:
    camera = camera_to_local(_load_camera(folder / METADATA_FILE), origin)
    size = (camera.height, camera.width)
    values = _load_values(folder / "median_z.npy", size)
    valid = load_mask(folder / VALID_FILE, size) > 0.5
    color = load_image(folder / COLOR_FILE)[..., :3] if (folder / COLOR_FILE).is_file() else None
    try:
        return DepthView(camera, torch.from_numpy(np.where(valid, values, 0).astype(np.float32)), color)
    except ShapeError as error:
        raise FileFormatError(f"{folder / COLOR_FILE}: expected {list(size)} pixels") from error


def load_depth_map(folder: FilePath, camera: Camera) -> tuple[DepthMap, Tensor]:
    """Load the depth map of a camera, and its colors, as `save_depth` wrote them."""
    path, size = Path(folder), (camera.height, camera.width)

    def load(name: str) -> Tensor:
        return torch.from_numpy(np.array(_load_values(path / f"{name}.npy", size)))

    depth = DepthMap(
        camera,
        load("expected_distance"),
        load("median_distance"),
        load("first_surface_distance"),
        load("opacity"),
        load("std"),
        load("confidence"),
        torch.from_numpy(load_mask(path / VALID_FILE, size) > 0.5),
    )
    return depth, load_image(path / COLOR_FILE)[..., :3]


def _load_values(path: Path, size: tuple[int, int]) -> Floats:
    data = read_bytes(path)
    with reading(path):
        values = array_from_npy(data)
        if values.shape != size or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise FileFormatError(
                f"expected {list(size)} finite floats, got {values.dtype} {list(values.shape)}"
            )
    return values
