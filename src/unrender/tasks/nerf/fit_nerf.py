"""Radiance field from posed images, by differentiable volume rendering."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

from unrender.data.depth_supervision import DepthSupervision
from unrender.data.pixels import PixelSource
from unrender.data.scenes import Scene
from unrender.errors import InputError
from unrender.fields.hash_nerf import HashNeRF
from unrender.fields.nerf import NeRF
from unrender.tasks.nerf.config import FitNerf, check
from unrender.tasks.nerf.schedule import NerfSchedule
from unrender.tasks.nerf.training import NerfTraining, initial_field
from unrender.training.checkpoints import Origin
from unrender.training.loop import Budget, Job, train
from unrender.training.step import TrainingStep

log = logging.getLogger("unrender")
DEFAULT_MINUTES = 5.0
"""Training budget where neither steps nor minutes are given."""


def fit_nerf(
    scene: Scene,
    config: FitNerf = FitNerf(),
    *,
    schedule: NerfSchedule = NerfSchedule(),
    checkpoints: Path | None = None,
    resume: Path | None = None,
) -> Iterator[TrainingStep[HashNeRF | NeRF]]:
    """Fit a radiance field to the training frames of a scene; every step has a usable one, the last one the result.

    With `checkpoints`, a folder, all that is needed to resume is saved there every few minutes and at the end, also if
    the iterator is closed early. `resume` is such a folder: training continues from there with the same numbers as if
    it had never stopped, if `steps` are given. `schedule` says when resolutions, learning rates and the occupancy grid
    change; the default suits all scenes.

    Raises InputError before the first step for a scene without training frames, and for settings that differ from
    those of the training to be resumed.
    """
    check(config)
    frames = scene.split("train")
    if not frames:
        raise InputError(f"fit_nerf: the scene {scene.name} has no training frames")
    if len(frames) == 1:
        log.warning("there is only one training image: depth cannot be recovered from a single view")

    def start(seed: int) -> NerfTraining:
        pixels = PixelSource(frames, memory_mib=config.memory_mib, seed=seed)
        depths = DepthSupervision(frames, seed=seed) if config.depth > 0 else None
        field = initial_field(scene, config, schedule, seed)
        return NerfTraining(field, pixels, depths or None, config, schedule, seed)

    settings = dataclasses.asdict(config) | {"schedule": dataclasses.asdict(schedule) | {"loop": None}}
    minutes = DEFAULT_MINUTES if config.minutes is None else config.minutes
    return train(
        Job(
            start,
            config.seed,
            Budget(config.steps, None if config.steps is not None else minutes),
            schedule.loop,
            Origin("fit_nerf", scene, settings),
            scene.split("test"),
            "black" if config.background == "black" else "white",
            checkpoints,
            resume,
        )
    )
