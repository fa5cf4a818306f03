"""Views to render: along a camera path, at the cameras of a run, or from a file of cameras."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch

from unrender.data.camera_files import load_cameras
from unrender.data.frames import Frame, Split, evenly_spaced
from unrender.data.scenes import load_scene
from unrender.errors import InputError
from unrender.fields.protocol import RenderedField
from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import interpolated_path, orbit_path, spiral_path
from unrender.io.file_names import safe_file_names, without_suffix
from unrender.io.files import MissingFileError
from unrender.runs.saved_run import Run, saved_depth_scale

CameraModel = Literal["auto", "equirectangular"]
PANORAMA_HEIGHT = 512
PATHS = ("auto", "orbit", "interpolate", "spiral", "test", "train")
NUM_VIEWS = 36
"""Views along a generated path, by default."""
VIEWS_PER_KEY, MIN_KEYS = 3, 8
"""Interpolated paths: views per key camera, unless fewer than `MIN_KEYS` cameras were left: with few keys the path cuts
through the scene."""
FORWARD_FACING = 0.9
"""Length of the mean viewing direction above which cameras count as forward-facing."""


def check_path(path: str) -> None:
    """Raise InputError unless `path` is one of `PATHS` or an existing JSON file."""
    is_file = path.lower().endswith(".json")
    if path not in PATHS and not is_file:
        raise InputError(f"--path {path}: must be one of {', '.join(PATHS)}, or a JSON file of cameras")
    if is_file and not Path(path).is_file():
        raise MissingFileError(f"--path {path}: no such file")


def views_along(run: Run, path: str, count: int | None) -> list[Frame]:
    """Return the views of one of `PATHS` or of a JSON file of cameras; evenly spaced if there are more than `count`."""
    if path.lower().endswith(".json"):
        return evenly_spaced(load_cameras(path, origin=run.origin), count)
    frames = run.frames()
    training = [frame for frame in frames if frame.split == "train"]
    if path == "train":
        if not training:
            raise InputError(f"{run.folder}: there are no training views; choose another --path")
        return evenly_spaced(training, count)
    if path == "test":
        test = [f for f in frames if f.split == "test"] or [f for f in frames if f.split == "val"]
        if not test:
            raise InputError(f"{run.folder}: the scene has no test views; choose another --path")
        return evenly_spaced(test, count)
    path_cameras = _path([frame.camera for frame in training or frames], path, run.field, count or NUM_VIEWS)
    names = [f"view_{index:03d}.png" for index in range(*path_cameras.batch_shape)]
    return [Frame(name, path_cameras[i], run.folder / name, "test") for i, name in enumerate(names)]


def _path(cameras: list[Camera], path: str, field: RenderedField, count: int) -> Camera:
    if path == "auto":
        directions = torch.stack([camera.camera_from_world[2, :3] for camera in cameras])
        is_forward_facing = float(directions.mean(0).norm()) > FORWARD_FACING
        path = "spiral" if is_forward_facing else "interpolate" if field.scene_box.contracted else "orbit"
    if path == "interpolate":
        keys = evenly_spaced(cameras, max(MIN_KEYS, count // VIEWS_PER_KEY))
        return interpolated_path(keys, count, closed=True, order="nearest")
    return spiral_path(cameras, count) if path == "spiral" else orbit_path(cameras, count)


def views_named(run: Run, names: Sequence[str]) -> list[Frame]:
    """Return the views with the given names: paths, file names or stems of their images."""
    frames = run.frames()
    return [_view_named(name, frames, run.folder) for name in dict.fromkeys(names)]


def _view_named(name: str, frames: Sequence[Frame], folder: Path) -> Frame:
    found = [f for f in frames if name in (f.name, Path(f.name).name, Path(f.name).stem)]
    if len(found) != 1:
        examples = ", ".join(frame.name for frame in (found or frames)[:5])
        problem = "matches several views" if found else "no such view"
        raise InputError(
            f"{folder}: --names {name}: {problem}; for example {examples}{', …' * (len(frames) > 5)}"
        )
    return found[0]


def file_stems(frames: Sequence[Frame]) -> list[str]:
    """Return a safe and unique file stem for each view: that of its image, with its folders if several are the same."""
    return safe_file_names([without_suffix(frame.name) for frame in frames])


def with_camera_model(frame: Frame, model: CameraModel) -> Frame:
    """Return a view with another camera model at the same pose; a 360° image has 1,024 × 512 pixels."""
    if model == "auto" or frame.camera.projection == model:
        return frame
    return dataclasses.replace(frame, camera=frame.camera.to_equirectangular(PANORAMA_HEIGHT))


def with_size(frame: Frame, size: int | None) -> Frame:
    """Return a view with `size` pixels along its longer side; None keeps its size."""
    return frame if size is None else dataclasses.replace(frame, camera=frame.camera.resize_longest(size))


def views_of_split(
    run: Run,
    split: Split,
    scene: Path | None = None,
    inverted_depth_range: float | None = None,
    depth_scale: float | None = None,
) -> tuple[Frame, ...]:
    """Return the views of a split of the run's scene, with their images; for "test", those that the run held out.

    scene: where the scene is now, if it has been moved. depth_scale: by default that of the run.
    InputError if there are no such views.
    """
    path = run.scene_path(scene)
    depth_scale = saved_depth_scale(run.folder) if depth_scale is None else depth_scale
    loaded = load_scene(
        path, inverted_depth_range=inverted_depth_range, origin=run.origin, depth_scale=depth_scale
    )
    frames = loaded.split(split)
    if split == "test" and run.test_views is not None:
        by_name = {frame.name: frame for frame in loaded.frames}
        if missing := [name for name in run.test_views if name not in by_name]:
            raise InputError(f"{path}: no {', '.join(missing[:3])}, a test view of {run.folder}")
        frames = tuple(by_name[name] for name in run.test_views)
        if not frames:
            raise InputError(
                f"{run.folder}: no views were held out; evaluate the training views: --split train"
            )
    if not frames:
        present = [name for name in get_args(Split) if loaded.split(name)]
        raise InputError(f"{path}: no views in the {split} split; give --split {' or '.join(present)}")
    return frames
