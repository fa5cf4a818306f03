"""Radiance field from posed images, by differentiable volume rendering."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from unrender.data.scenes import Scene
from unrender.errors import InputError
from unrender.fields.registry import field_type
from unrender.fields.trainable import FieldOptions, TrainableField
from unrender.tasks.nerf.config import FitNerf, check
from unrender.training.checkpoints import Origin
from unrender.training.field_training import FieldTraining, Objective, load_training_data
from unrender.training.initial_occupancy import find_space
from unrender.training.loop import Budget, Job, train
from unrender.training.schedule import Schedule
from unrender.training.step import TrainingStep

log = logging.getLogger("unrender")
DEFAULT_MINUTES = 5.0
"""Training budget where neither steps nor minutes are given."""
UNBOUNDED_DISTORTION_LOSS_WEIGHT = 0.03
"""Without the loss, thin haze before the cameras costs training views next to nothing, and obstructs new views."""


def fit_nerf(
    scene: Scene,
    config: FitNerf = FitNerf(),
    *,
    schedule: Schedule = Schedule(),
    checkpoints: Path | None = None,
    resume: Path | None = None,
) -> Iterator[TrainingStep[TrainableField]]:
    """Train a radiance field on the training frames of a scene; each step has a usable field, the last one the result.

    With `checkpoints`, a folder, all that is needed to resume is saved there every few minutes and at the end, also if
    the iterator is closed early. `resume` is such a folder: training continues from there with the same numbers as if
    it had never stopped, if `steps` are given. The default `schedule` suits all scenes.

    Raises InputError before the first step for a scene without training frames, and for settings that differ from
    those of the training to be resumed.
    """
    check(config)
    frames = scene.split("train")
    if not frames:
        raise InputError(f"fit_nerf: the scene {scene.name} has no training frames")
    if len(frames) == 1:
        log.warning("there is only one training image: depth cannot be recovered from a single view")
    kind = field_type(config.model)
    options = FieldOptions(
        steps=config.steps,
        samples=config.samples,
        table_log2=config.table_log2,
        schedule=schedule.field,
    )

    def start(seed: int) -> FieldTraining[TrainableField]:
        pixels, depths = load_training_data(frames, config.memory_mib, config.depth_loss_weight, seed)
        region = find_space(scene, frames, config.space, kind.region_cells(options))
        field = kind.create(region, options, torch.Generator().manual_seed(seed))
        objective = _objective(config, field.scene_box.contracted)
        return FieldTraining(field, options, pixels, depths, objective, seed)

    minutes = DEFAULT_MINUTES if config.minutes is None else config.minutes
    return train(
        Job(
            start,
            config.seed,
            Budget(config.steps, None if config.steps is not None else minutes),
            schedule,
            Origin("fit_nerf", scene, dataclasses.asdict(config), schedule.field),
            scene.split("test"),
            "black" if config.background == "black" else "white",
            checkpoints,
            resume,
        )
    )


def _objective(config: FitNerf, contracted: bool) -> Objective:
    """Choose the weights that the config leaves open."""
    distortion = config.distortion_loss_weight
    if distortion is None:
        distortion = UNBOUNDED_DISTORTION_LOSS_WEIGHT if contracted else 0.0
    per_image = config.exposure == "per_image" or (config.exposure == "auto" and contracted)
    return Objective(config.depth_loss_weight, distortion, config.background, per_image)
