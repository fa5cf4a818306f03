"""A run that fits a field: its scene, options and files."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from unrender.data.camera_files import save_cameras
from unrender.data.frames import evenly_spaced
from unrender.data.scenes import Scene
from unrender.runs.folder import create_run_folder
from unrender.runs.options import check_views
from unrender.runs.saved_run import CAMERAS, FIELD_FILES, as_color

EVENTS = "tensorboard"
"""Folder of the event files in a run."""
IMAGES_CHECKED = 8
"""Training images that are read to find out whether a scene is transparent."""


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """Evaluation and exports after training."""

    views: int | Literal["all"] | None = None
    """Number of test views to evaluate, evenly spaced.
    Default: as many as fit into 30 seconds, or a quarter of the training time if that is longer."""
    video: bool = True
    """Render a video of the result: a turntable, or a path between the cameras for unbounded scenes."""
    mesh: bool = True
    """Write the surface of a voxel volume as mesh.ply and cloud.ply; `unrender export` works for any field."""

    def check(self) -> None:
        """Raise InputError for values out of range."""
        check_views(None if self.views == "all" else self.views)


@dataclasses.dataclass(frozen=True)
class FieldRun:
    """A run of `unrender fit-volume` or `unrender fit-nerf` while it is written."""

    task: str
    source: Path
    """Path of the scene, as given."""
    scene: Scene
    config: Any
    evaluation: EvaluationOptions
    folder: Path
    background: Tensor | None
    """Background of rendered views; None uses the background of the field."""
    depth_scale: float | None = None
    """World units per unit of the depth images, if given."""

    @property
    def field_file(self) -> Path:
        """Path of the fitted field."""
        return self.folder / FIELD_FILES[self.task]

    def start(self) -> None:
        """Write config.json and the cameras of the scene."""
        settings = {
            "scene": self.source.resolve(),
            "config": self.config,
            "depth_scale": self.depth_scale,
            "background": as_color(self.background),
            "test_views": [frame.name for frame in self.scene.split("test")],
            "evaluation": self.evaluation,
        }
        create_run_folder(self.folder, self.task, settings)
        save_cameras(self.scene.frames, self.folder / CAMERAS, origin=self.scene.origin)


def choose_background(background: str, scene: Scene) -> Tensor | None:
    """Return the background of rendered views: white unless black is requested; None for opaque photos."""
    for frame in evenly_spaced(scene.split("train"), IMAGES_CHECKED):
        alpha = frame.load_image().alpha
        if alpha is not None and bool((alpha < 1).any()):
            return torch.full((3,), 0.0 if background == "black" else 1.0)
    return None
