"""Radiance field from posed images, by differentiable volume rendering."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from unrender.data.scenes import Scene
from unrender.fields.registry import field_type
from unrender.fields.trainable import FieldOptions, TrainableField
from unrender.tasks.nerf.config import FitNerf, check
from unrender.training.field_training import Objective
from unrender.training.fit_field import Chosen, Recipe, fit_field
from unrender.training.schedule import Schedule
from unrender.training.shards import resolve_shards
from unrender.training.step import TrainingStep

DEFAULT_MINUTES = 5.0
"""Training budget where neither steps nor minutes are given."""
CPU_SAMPLES, GPU_SAMPLES = 65_536, 262_144
"""Default samples of a step of the hash model."""
SAMPLES_PER_SHARD = 32_768
"""Default samples of each shard, at least: a shard of fewer costs more than its samples."""
CPU_TABLE_LOG2, GPU_TABLE_LOG2 = 18, 20
UNBOUNDED_DISTORTION_LOSS_WEIGHT = 0.03
"""Without the loss, thin haze before the cameras costs training views next to nothing, and obstructs new views."""


def default_samples(on_gpu: bool, num_shards: int) -> int:
    """Return the samples of a step of the hash model."""
    return max(GPU_SAMPLES if on_gpu else CPU_SAMPLES, SAMPLES_PER_SHARD * num_shards)


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
    if config.minutes is None and config.steps is None:
        config = dataclasses.replace(config, minutes=DEFAULT_MINUTES)

    def options(on_gpu: bool) -> FieldOptions:
        samples, table_log2 = config.samples, GPU_TABLE_LOG2 if on_gpu else CPU_TABLE_LOG2
        return FieldOptions(
            steps=config.steps,
            samples=default_samples(on_gpu, resolve_shards(config.shards)) if samples is None else samples,
            table_log2=table_log2 if config.table_log2 is None else config.table_log2,
        )

    def complete(options: FieldOptions, objective: Objective, contracted: bool) -> Chosen:
        distortion = config.distortion_loss_weight
        if distortion is None:
            distortion = UNBOUNDED_DISTORTION_LOSS_WEIGHT if contracted else 0.0
        per_image = config.exposure == "per_image" or (config.exposure == "auto" and contracted)
        return options, objective._replace(distortion_loss_weight=distortion, per_image_exposure=per_image)

    recipe = Recipe(field_type(config.model), options, complete)
    return fit_field(
        "fit_nerf", scene, config, recipe, schedule=schedule, checkpoints=checkpoints, resume=resume
    )
