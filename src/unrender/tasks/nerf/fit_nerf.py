"""Radiance field from posed images, by differentiable volume rendering."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from unrender.data.scenes import Scene
from unrender.devices import resolve_device
from unrender.errors import InputError
from unrender.fields.registry import field_type
from unrender.fields.schedules import HashSchedule, schedule_of
from unrender.fields.trainable import FieldOptions, TrainableField
from unrender.kernels._dispatch import implementation
from unrender.tasks.nerf.config import FitNerf, check
from unrender.training.checkpoints import Origin
from unrender.training.field_training import GPU_WHITE_FRACTION, FieldTraining, Objective
from unrender.training.initial_occupancy import find_space
from unrender.training.loop import Budget, Job, Training, train
from unrender.training.schedule import Schedule
from unrender.training.shards import default_depth_loss_weight, load_shards, resolve_shards
from unrender.training.step import TrainingStep
from unrender.workers import current_workers

log = logging.getLogger("unrender")
DEFAULT_MINUTES = 5.0
"""Training budget where neither steps nor minutes are given."""
CPU_SAMPLES, GPU_SAMPLES = 65_536, 262_144
"""Default samples of a step of the hash model."""
CPU_TABLE_LOG2, GPU_TABLE_LOG2 = 18, 20
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
    config = dataclasses.replace(config, shards=resolve_shards(config.shards))
    frames = scene.split("train")
    if not frames:
        raise InputError(f"fit_nerf: the scene {scene.name} has no training frames")
    if len(frames) == 1:
        log.warning("there is only one training image: depth cannot be recovered from a single view")
    device = resolve_device(config.device)
    schedule = schedule.on(device)
    minutes = DEFAULT_MINUTES if config.minutes is None else config.minutes
    return train(
        Job(
            lambda seed: _start(scene, config, schedule, device, seed),
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


def _start(
    scene: Scene, config: FitNerf, schedule: Schedule, device: torch.device, seed: int
) -> Training[TrainableField]:
    """Load the data and make the untrained field."""
    frames, kind, on_gpu = scene.split("train"), field_type(config.model), is_gpu(device)
    samples, table_log2 = (GPU_SAMPLES, GPU_TABLE_LOG2) if on_gpu else (CPU_SAMPLES, CPU_TABLE_LOG2)
    known = schedule.field
    if on_gpu and known is None:
        known = kind.gpu_schedule
    options = FieldOptions(
        steps=config.steps,
        samples=samples if config.samples is None else config.samples,
        table_log2=table_log2 if config.table_log2 is None else config.table_log2,
        schedule=known,
    )
    num_shards = resolve_shards(config.shards)
    shards = load_shards(
        frames,
        num_shards,
        current_workers(),
        memory_mib=config.memory_mib,
        depth_loss_weight=config.depth_loss_weight,
        seed=seed,
        device=device,
    )
    on_device = shards[0].pixels.on_device(device) if on_gpu and num_shards == 1 else None
    region = find_space(scene, frames, config.space, kind.region_cells(options), on_device)
    field = kind.create(region, options, torch.Generator().manual_seed(seed)).to(device)
    objective = _objective(config, field.scene_box.contracted, on_gpu)
    has_kernels = implementation("hash_grid", device) is not None
    if on_device is not None and kind.has_graph_step and has_kernels:
        from unrender.training.graph_training import GraphOptions, GraphTraining  # loads Warp

        graph = GraphOptions(samples=options.samples, schedule=schedule_of(known, HashSchedule()))
        pixels, depths = shards[0].pixels, shards[0].depths
        known = None if depths is None else depths.on_device(device)
        return GraphTraining(field, on_device, graph, objective, seed, pixels.state(), known)
    return FieldTraining(
        field, options, shards, objective, seed, num_shards=num_shards, num_frames=len(frames)
    )


def is_gpu(device: torch.device) -> bool:
    """Say whether the kernels for GPUs train there."""
    return device.type == "cuda"


def _objective(config: FitNerf, contracted: bool, on_gpu: bool) -> Objective:
    """Choose the weights that the config leaves open."""
    distortion = config.distortion_loss_weight
    if distortion is None:
        distortion = UNBOUNDED_DISTORTION_LOSS_WEIGHT if contracted else 0.0
    per_image = config.exposure == "per_image" or (config.exposure == "auto" and contracted)
    white = GPU_WHITE_FRACTION if on_gpu else 0.0
    weight = default_depth_loss_weight(config.depth_loss_weight)
    return Objective(weight, distortion, config.background, white, per_image)
