"""Volume from posed images: voxels with density and color, by differentiable volume rendering."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch

from unrender.data.scenes import Scene
from unrender.devices import resolve_device
from unrender.errors import InputError
from unrender.fields.trainable import FieldOptions
from unrender.fields.voxels import SparseVoxels
from unrender.tasks.volume.config import FitVolume, check
from unrender.training.checkpoints import Origin
from unrender.training.field_training import GPU_WHITE_FRACTION, FieldTraining, Objective
from unrender.training.initial_occupancy import find_space
from unrender.training.loop import Budget, Job, train
from unrender.training.schedule import Schedule
from unrender.training.shards import default_depth_loss_weight, load_shards, resolve_shards
from unrender.training.step import TrainingStep
from unrender.workers import current_workers

CPU_RESOLUTION, GPU_RESOLUTION = 256, 384
"""Default number of voxels along the longest side."""
DEFAULT_STEPS = 4000
"""Training budget where neither steps nor minutes are given."""
UNBOUNDED_TOTAL_VARIATION, UNBOUNDED_SPARSITY = 0.3, 0.03
"""Default weights of the losses in unbounded space."""


def fit_volume(
    scene: Scene,
    config: FitVolume = FitVolume(),
    *,
    schedule: Schedule = Schedule(),
    checkpoints: Path | None = None,
    resume: Path | None = None,
) -> Iterator[TrainingStep[SparseVoxels]]:
    """Fit voxels to the training frames of a scene; every step has a usable field, the last one the result.

    With `checkpoints`, a folder, all that is needed to resume is saved there every few minutes and at the end, also if
    the iterator is closed early. `resume` is such a folder: training continues from there with the same numbers as if
    it had never stopped, unless `minutes` are given. The default `schedule` suits all scenes.

    Source: Fridovich-Keil and Yu et al. 2022 (Plenoxels), with the log of the density between the voxels' corners.
    Raises InputError before the first step for a scene without training frames, or whose masks exclude everything, and
    for settings that differ from those of the training to be resumed.
    """
    if config.minutes is None and config.steps is None:
        config = dataclasses.replace(config, steps=DEFAULT_STEPS)
    check(config)
    num_shards = resolve_shards(config.shards)
    config = dataclasses.replace(config, shards=num_shards)
    frames = scene.split("train")
    if not frames:
        raise InputError(f"fit_volume: the scene {scene.name} has no training frames")

    device = resolve_device(config.device)
    schedule = schedule.on(device)
    white = 0.0 if device.type == "cpu" else GPU_WHITE_FRACTION

    def start(seed: int) -> FieldTraining[SparseVoxels]:
        shards = load_shards(
            frames,
            num_shards,
            current_workers(),
            memory_mib=config.memory_mib,
            depth_loss_weight=config.depth_loss_weight,
            seed=seed,
            device=device,
        )
        options = _options(config, schedule, final_resolution(config))
        cells, on_device = SparseVoxels.region_cells(options), None
        if device.type != "cpu" and num_shards == 1:
            on_device = shards[0].pixels.on_device(device)
        region = find_space(scene, frames, config.space, cells, on_device)
        field = SparseVoxels.create(region, options, torch.Generator().manual_seed(seed)).to(device)
        options = _with_default_weights(options, config, field.scene_box.contracted)
        weight = default_depth_loss_weight(config.depth_loss_weight)
        objective = Objective(weight, 0.0, config.background, white)
        return FieldTraining(
            field, options, shards, objective, seed, num_shards=num_shards, num_frames=len(frames)
        )

    return train(
        Job(
            start,
            config.seed,
            Budget(config.steps, config.minutes),
            schedule,
            Origin("fit_volume", scene, dataclasses.asdict(config), schedule.field),
            scene.split("test"),
            "black" if config.background == "black" else "white",
            checkpoints,
            resume,
        )
    )


def final_resolution(config: FitVolume) -> int:
    """Return the voxels along the longest side of the final grid."""
    if config.resolution is not None:
        return config.resolution
    return CPU_RESOLUTION if resolve_device(config.device).type == "cpu" else GPU_RESOLUTION


def _options(config: FitVolume, schedule: Schedule, resolution: int) -> FieldOptions:
    return FieldOptions(
        steps=config.steps,
        rays=config.rays,
        resolution=resolution,
        degree=config.degree,
        schedule=schedule.field,
    )


def _with_default_weights(options: FieldOptions, config: FitVolume, contracted: bool) -> FieldOptions:
    """Choose the weights that the config leaves open."""
    variation, sparsity = config.total_variation_loss_weight, config.sparsity_loss_weight
    usual = (UNBOUNDED_TOTAL_VARIATION, UNBOUNDED_SPARSITY) if contracted else (0.0, 0.0)
    return dataclasses.replace(
        options,
        smoothness=usual[0] if variation is None else variation,
        sparsity=usual[1] if sparsity is None else sparsity,
    )
