"""Fields, checkpoints, and the JSON of run folders."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from fuzzing import layouts
from fuzzing.kinds import Kind
from scene_files import cameras, write_nerfstudio
from unrender import (
    Camera,
    FitNerf,
    FitVolume,
    Frame,
    HashLevels,
    HashNeRF,
    NeRF,
    OccupancyGrid,
    SceneBox,
    SparseVoxels,
    TrainableField,
    fit_nerf,
    fit_volume,
    load_field,
    load_scene,
    save_cameras,
    save_field,
)
from unrender.io.poses import load_pose
from unrender.runs.depth_sources import kind_of_source
from unrender.runs.field_run import EvaluationOptions
from unrender.runs.folder import CONFIG, create_run_folder
from unrender.runs.resume import saved_config, saved_group
from unrender.runs.saved_run import load_run
from unrender.runs.views import views_along
from unrender.training.checkpoints import CHECKPOINT

CAMERA = Camera.look_at([0.0, 0.5, 3.0], fov_degrees=50.0, height=6, width=6)
VOLUME = FitVolume(steps=2, rays=64, resolution=16, space="aabb", device="cpu")
NERF = FitNerf(steps=2, samples=512, table_log2=10, device="cpu")


def _box() -> SceneBox:
    return SceneBox.cube(torch.zeros(3), 1.0)


def _voxels() -> TrainableField:
    mask = torch.zeros(16, 16, 16, dtype=torch.bool)
    mask[4:8, 4:8, 4:8] = True
    return SparseVoxels.from_mask(mask, _box(), degree=1, opacity=0.9)


def _hash() -> TrainableField:
    grid = OccupancyGrid(torch.ones(4, 4, 4, dtype=torch.bool))
    return HashNeRF(_box(), HashLevels((4, 6), 8), grid, step=0.1)


def _nerf(model: str) -> TrainableField:
    return NeRF(_box(), model, width=16, near=0.1)


def _render(field: TrainableField) -> object:
    output = field.render(CAMERA, quick=True)
    return field, field.near, output.color, output.opacity, field.describe()


def _field(name: str, make: object) -> Kind:
    assert callable(make)
    return Kind(
        f"field-{name}",
        "f.safetensors",
        lambda folder: save_field(make(), folder / "f.safetensors"),
        lambda folder: _render(load_field(folder / "f.safetensors")),
        layouts.SAFETENSORS,
    )


def _steps(task: str, folder: Path, resume: bool) -> Iterator[object]:
    fit, config = (fit_volume, VOLUME) if task == "fit-volume" else (fit_nerf, NERF)
    return fit(load_scene(folder / "scene"), config, checkpoints=folder, resume=folder if resume else None)


def _write_checkpoint(task: str, folder: Path) -> None:
    (folder / "scene").mkdir()
    write_nerfstudio(folder / "scene", cameras(3))
    config = VOLUME if task == "fit-volume" else NERF
    create_run_folder(folder, task, {"scene": folder / "scene", "config": config, "evaluation": {"views": 1}})
    steps = _steps(task, folder, resume=False)
    next(steps)
    steps.close()


def _resume(task: str, folder: Path) -> object:
    """Resume a training, take a step, and render what comes of it."""
    kept = (folder / CHECKPOINT).read_bytes()
    steps = _steps(task, folder, resume=True)
    try:
        step = next(steps)
        return _render(step.result), dict(step.losses)
    finally:
        steps.close()
        (folder / CHECKPOINT).write_bytes(kept)


def _checkpoint(task: str) -> Kind:
    make, read = functools.partial(_write_checkpoint, task), functools.partial(_resume, task)
    return Kind(f"checkpoint-{task}", CHECKPOINT, make, read, layouts.SAFETENSORS)


def _write_run(folder: Path) -> None:
    frames = [Frame(f"{i}.png", camera, folder / f"{i}.png") for i, camera in enumerate(cameras(3))]
    create_run_folder(
        folder,
        "fit-volume",
        {"scene": "gone", "config": VOLUME, "evaluation": {"views": 1}, "background": [1, 1, 1]},
    )
    content = json.loads((folder / CONFIG).read_bytes()) | {"test_views": ["0.png"]}
    (folder / CONFIG).write_text(json.dumps(content))
    save_cameras(frames, folder / "cameras.json")
    save_field(_voxels(), folder / "volume.safetensors")
    (folder / CHECKPOINT).write_bytes(b"x")


def _read_run(folder: Path) -> object:
    kind_of_source(folder)
    saved_config(folder, "fit-volume", FitVolume)
    saved_group(folder, "evaluation", EvaluationOptions).check()
    run = load_run(folder)
    frames = run.frames()
    return (
        _render(run.field),
        run.background,
        frames,
        [frame.camera for frame in views_along(run, "orbit", 3)],
    )


def _run(name: str, file: str, layout: layouts.Layout) -> Kind:
    return Kind(f"run-{name}", file, _write_run, _read_run, layout)


def _pose(name: str, content: bytes, layout: layouts.Layout) -> Kind:
    return Kind(
        f"pose-{name}",
        f"pose.{name}",
        lambda folder: (folder / f"pose.{name}").write_bytes(content) and None,
        lambda folder: load_pose(folder / f"pose.{name}"),
        layout,
    )


def _npy_bytes() -> bytes:
    import io

    import numpy as np

    file = io.BytesIO()
    np.save(file, np.eye(4))
    return file.getvalue()


POSE = [[1.0, 0.0, 0.0, 0.5], [0.0, 1.0, 0.0, 0.25], [0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0]]
KINDS = [
    _field("hash", _hash),
    _field("nerf", lambda: _nerf("paper")),
    _field("tutorial", lambda: _nerf("tutorial")),
    _field("voxels", _voxels),
    _checkpoint("fit-volume"),
    _checkpoint("fit-nerf"),
    _run("config", CONFIG, layouts.JSON),
    _run("cameras", "cameras.json", layouts.JSON),
    _run("field", "volume.safetensors", layouts.SAFETENSORS),
    _pose("json", json.dumps({"camera_from_object": POSE}).encode(), layouts.JSON),
    _pose("txt", "\n".join(" ".join(map(str, row)) for row in POSE).encode(), layouts.TEXT),
    _pose("npy", _npy_bytes(), layouts.NPY),
]
