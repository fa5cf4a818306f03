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
from unrender.data.nerfstudio import camera_of_table
from unrender.data.save_transforms import intrinsics_table
from unrender.errors import FileFormatError, InputError, ShapeError
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
KINDS = tuple(
    f"{kind}_{axis}" for kind in ("expected", "median", "first_surface") for axis in ("z", "distance")
)
OTHERS = ("opacity", "std", "confidence")
ABOUT, VALID, COLOR = "depth.json", "valid.png", "color.png"
MOST = 65535


@dataclasses.dataclass(frozen=True)
class DepthFiles:
    """In which forms depth is written, besides npy."""

    formats: tuple[DepthFormat, ...] = ()
    """png16: whole numbers of `scale`, as depth cameras write them. exr, tiff: floats."""
    scale: float = MILLIMETERS
    """World units of one step of a 16-bit png: millimeters, if units are meters."""
    colormap: Colormap = "viridis"
    """Of the preview. grey: dark is near, bright is far."""

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
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a folder, whole or not at all, in place of an older one.

    `<kind>_z.npy` and `<kind>_distance.npy` (expected, median, first_surface), opacity.npy, std.npy, confidence.npy,
    all float32 and in world units; valid.png; preview.png, the median distance with a legend; color.png, where `color`
    is given; depth.json, with units, kinds, scale, intrinsics, pose, and `facts`. Other formats have 0 where a pixel is
    not valid; in whole numbers, where 0 is nothing, depths below half a step count as one. Depths that 16 bits do not
    hold are refused.
    """
    valid = depth.valid.cpu().numpy()
    with atomic_write_folder(folder) as place:
        for name in (*KINDS, *OTHERS):
            values = floats_from_tensor(getattr(depth, name)).astype(np.float32)
            with atomic_write(place / f"{name}.npy") as file:
                np.save(file, values)
            if name in KINDS:
                for kind in files.formats:
                    _save_as(kind, np.where(valid, values, np.float32(0)), place / name, files.scale)
        save_image(depth.valid.float(), place / VALID)
        save_image(
            depth_preview_image(depth.median_distance, depth.valid, files.colormap), place / "preview.png"
        )
        if color is not None:
            save_image(color.detach().clamp(0, 1), place / COLOR)
        about = _about(depth, Path(folder).name, files) | dict(facts or {})
        with atomic_write(place / ABOUT) as file:
            file.write((json.dumps(about, indent=1) + "\n").encode())


def _about(depth: DepthMap, name: str, files: DepthFiles) -> dict[str, Any]:
    return {
        "unrender": __version__,
        "units": "world units of the scene",
        "kinds": {
            "expected": "mean of where light is absorbed",
            "median": "half of what is absorbed is absorbed before",
            "first_surface": "where the opacity reaches a threshold",
        },
        "z": "along the camera's axis",
        "distance": "along the ray of the pixel",
        "nothing": 0,
        "formats": ["npy", *files.formats],
        "png_scale": files.scale if "png16" in files.formats else None,
        "valid_fraction": float(depth.valid.float().mean()),
        "camera": {
            **intrinsics_table(name, depth.camera),
            "transform_matrix": depth.camera.to_opengl().double().tolist(),
        },
    }


def _save_as(kind: DepthFormat, values: Floats, stem: Path, scale: float) -> None:
    from PIL import Image

    if kind == "png16":
        with atomic_write(stem.with_suffix(".png")) as file:
            Image.fromarray(steps_of_depth(values, scale)).save(file, "PNG")
    elif kind == "tiff":
        with atomic_write(stem.with_suffix(".tiff")) as file:
            Image.fromarray(values).save(file, "TIFF", compression="tiff_adobe_deflate")
    else:
        with atomic_write(stem.with_suffix(".exr")) as file:
            write_exr(file, values)


def steps_of_depth(values: Floats, scale: float) -> Floats:
    """Return depths as whole numbers of `scale`, 0 only where they are 0; refuse what 16 bits do not hold."""
    steps = np.round(values.astype(np.float64) / scale)
    largest = float(values.max(initial=0))
    if steps.max(initial=0) > MOST:
        raise InputError(
            f"save_depth: the largest depth, {largest:.6g}, is {largest / scale:.0f} steps of {scale:g}, and 16 bits "
            f"hold {MOST}; give a scale of at least {largest / MOST:.3g}"
        )
    whole: Floats = np.where(values > 0, steps.clip(min=1), 0).astype(np.uint16)
    return whole


def load_depth_views(folder: FilePath) -> dict[str, DepthView]:
    """Load what `save_depth` wrote, by name: the folder of one view, or that in which those of several lie.

    Depth is the median z, 0 where it is not valid; colors are there if they were written.
    """
    place = Path(folder)
    if not place.is_dir():
        raise MissingFileError(f"{place}: no such folder; give one that `unrender depth` wrote")
    inside = [place / "depth", place]
    found = [p for base in inside for p in sorted(base.glob(f"*/{ABOUT}"))] or list(place.glob(ABOUT))
    if not found:
        raise FileFormatError(f"{place}: no depth maps: no {ABOUT} in it, nor in its folders")
    return {path.parent.name: _load_view(path.parent) for path in found}


def _load_view(place: Path) -> DepthView:
    path = place / ABOUT
    data = read_bytes(path)
    with reading(path):
        table = {"file_path": place.name, **json.loads(data)["camera"]}
        pose, _ = rigid_pose(place.name, table["transform_matrix"])
        camera = camera_of_table(table, pose, path)
    path, size = place / "median_z.npy", (camera.height, camera.width)
    data = read_bytes(path)
    with reading(path):
        values = array_from_npy(data)
        if values.shape != size or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise FileFormatError(
                f"{list(size)} finite floats are expected, got {values.dtype} {list(values.shape)}"
            )
    valid = load_mask(place / VALID, size) > 0.5
    color = load_image(place / COLOR)[..., :3] if (place / COLOR).is_file() else None
    try:
        return DepthView(camera, torch.from_numpy(np.where(valid, values, 0).astype(np.float32)), color)
    except ShapeError as error:
        raise FileFormatError(f"{place / COLOR}: {list(size)} pixels are expected") from error
