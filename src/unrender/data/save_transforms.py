"""Writer of transforms.json, for nerfstudio, instant-ngp and `load_scene`."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from unrender.data.frames import Frame, Split
from unrender.errors import InputError
from unrender.geometry.camera import Camera
from unrender.geometry.world_origin import ZERO, WorldOrigin
from unrender.io.depth import MILLIMETERS
from unrender.io.files import FilePath, atomic_write


def save_transforms(
    frames: Sequence[Frame], path: FilePath, *, points: str | None = None, origin: WorldOrigin = ZERO
) -> None:
    """Write frames as a transforms.json that refers to their images by relative paths.

    Values common to all cameras are written once, at the top level. `near` and `far` are not part of the format.
    `points` is the name of a ply file in the same folder. The frames are relative to `origin`, the file is in world
    coordinates.
    """
    folder = Path(path).parent
    tables = [_table(frame, folder, origin) for frame in frames]
    shared = {
        key: value
        for key, value in (tables[0] if tables else {}).items()
        if key != "file_path" and all(table.get(key) == value for table in tables)
    }
    content: dict[str, Any] = dict(shared) if points is None else shared | {"ply_file_path": points}
    for split in get_args(Split):
        names = [
            table["file_path"] for table, frame in zip(tables, frames, strict=True) if frame.split == split
        ]
        content |= {f"{split}_filenames": names} if names else {}
    content["frames"] = [
        {k: v for k, v in table.items() if k not in shared or k == "transform_matrix"} for table in tables
    ]
    content.pop("transform_matrix", None)
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def _table(frame: Frame, folder: Path, origin: WorldOrigin) -> dict[str, Any]:
    camera = frame.camera
    table: dict[str, Any] = {
        "file_path": _relative(frame.image_path, folder),
        **intrinsics_table(frame.name, camera),
        "transform_matrix": pose_table(camera, origin),
    }
    if frame.mask_path is not None:
        table["mask_path"] = _relative(frame.mask_path, folder)
    if frame.depth_file is not None:
        if (frame.depth_file.scale, frame.depth_file.kind, frame.depth_file.inverted) != (
            MILLIMETERS,
            "z",
            False,
        ):
            raise InputError(
                f"save_transforms: frame {frame.name}: its depth is not z-depth in thousandths of a unit; remove it "
                "with `dataclasses.replace(frame, depth_file=None)`"
            )
        table["depth_file_path"] = _relative(frame.depth_file.path, folder)
    return table


def pose_table(camera: Camera, origin: WorldOrigin) -> list[list[float]]:
    """Return a pose in OpenGL's convention and world coordinates, of a camera relative to an origin."""
    pose = camera.to_opengl().double()
    pose[:3, 3] += pose.new_tensor(origin)
    table: list[list[float]] = pose.tolist()
    return table


def intrinsics_table(name: str, camera: Camera) -> dict[str, Any]:
    """Return size, focal length, principal point and lens under the names of transforms.json."""
    if camera.projection == "orthographic" or camera.batch_shape:
        raise InputError(
            f"save_transforms: frame {name}: its camera should be a single perspective or equirectangular camera"
        )
    if camera.projection == "equirectangular":
        return _equirectangular_table(name, camera)
    (fx, fy), (cx, cy) = camera.focal.tolist(), camera.center.tolist()
    table: dict[str, Any] = {
        "camera_model": "OPENCV",
        "fl_x": fx,
        "fl_y": fy,
        "cx": cx,
        "cy": cy,
        "w": camera.width,
        "h": camera.height,
    }
    lens = camera.lens
    if lens is None:
        return table
    if bool(lens.denominator.any()):
        raise InputError(f"save_transforms: frame {name}: transforms.json has no lens with a denominator")
    table |= dict(zip(("k1", "k2", "k3", "k4"), lens.radial.tolist(), strict=True))
    if lens.model == "fisheye":
        return table | {"camera_model": "OPENCV_FISHEYE"}
    return table | dict(zip(("p1", "p2"), lens.tangential.tolist(), strict=True))


def _equirectangular_table(name: str, camera: Camera) -> dict[str, Any]:
    """Return the size of a 360° camera; InputError for a part of one, which the format does not have."""
    whole = camera.to_equirectangular(camera.height).resize(camera.height, camera.width)
    if not (torch.allclose(whole.focal, camera.focal) and torch.allclose(whole.center, camera.center)):
        raise InputError(f"save_transforms: frame {name}: its equirectangular camera should cover 360°")
    height, width = camera.height, camera.width
    table: dict[str, Any] = {"camera_model": "EQUIRECTANGULAR", "fl_x": width / 2, "fl_y": height}
    return table | {"cx": width / 2, "cy": height / 2, "w": width, "h": height}


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
