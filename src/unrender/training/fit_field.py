"""Fitting a field of any kind to the training frames of a scene: what `fit_nerf` and `fit_volume` have in common."""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar, cast

import torch

from unrender.data.scenes import Scene
from unrender.devices import resolve_device
from unrender.errors import InputError
from unrender.fields.schedules import HashSchedule, schedule_of
from unrender.fields.trainable import FieldOptions, TrainableField
from unrender.kernels._dispatch import implementation
from unrender.training.checkpoints import Origin
from unrender.training.field_config import FieldConfig
from unrender.training.field_training import FieldTraining, Objective
from unrender.training.initial_occupancy import find_space
from unrender.training.loop import Budget, Job, Training, train
from unrender.training.schedule import Schedule
from unrender.training.shards import DEPTH_LOSS_WEIGHT, load_shards, resolve_shards
from unrender.training.step import TrainingStep
from unrender.workers import current_workers

AnyField = TypeVar("AnyField", bound=TrainableField)
log = logging.getLogger("unrender")
GPU_WHITE_FRACTION = 0.5
"""Fraction of rays of transparent images that end on white on a GPU, as in results; the others keep a field from
representing the background."""


Chosen = tuple[FieldOptions, Objective]


@dataclasses.dataclass(frozen=True)
class Recipe(Generic[AnyField]):
    """What a task decides about its field."""

    kind: type[AnyField]
    options: Callable[[bool], FieldOptions]
    """Options of the field; the argument is whether it is trained on a GPU."""
    complete: Callable[[FieldOptions, Objective, bool], Chosen]
    """Choose the weights of losses that depend on whether space is contracted, the last argument."""


def fit_field(
    task: str,
    scene: Scene,
    config: FieldConfig,
    recipe: Recipe[AnyField],
    *,
    schedule: Schedule,
    checkpoints: Path | None,
    resume: Path | None,
) -> Iterator[TrainingStep[AnyField]]:
    """Train a field on the training frames of a scene, for the steps or minutes of the config.

    With `checkpoints`, a folder, all that is needed to resume is saved there; `resume` is such a folder.
    Raises InputError before the first step for a scene without training frames, and for settings that differ from
    those of the training to be resumed.
    """
    num_shards = resolve_shards(config.shards)
    config = dataclasses.replace(config, shards=num_shards)
    frames = scene.split("train")
    if not frames:
        raise InputError(f"{task}: the scene {scene.name} has no training frames")
    if len(frames) == 1:
        log.warning("there is only one training image: depth cannot be recovered from a single view")
    device = resolve_device(config.device)
    schedule = schedule.on(device)
    return train(
        Job(
            lambda seed: _start(scene, config, recipe, schedule.field, num_shards, device, seed),
            config.seed,
            Budget(config.steps, config.minutes),
            schedule,
            Origin(task, scene, dataclasses.asdict(config), schedule.field),
            scene.split("test"),
            "black" if config.background == "black" else "white",
            checkpoints,
            resume,
        )
    )


def _start(
    scene: Scene,
    config: FieldConfig,
    recipe: Recipe[AnyField],
    field_schedule: object,
    num_shards: int,
    device: torch.device,
    seed: int,
) -> Training[AnyField]:
    """Load the data and make the untrained field."""
    frames, kind, on_gpu = scene.split("train"), recipe.kind, is_gpu(device)
    if on_gpu and field_schedule is None:
        field_schedule = kind.gpu_schedule
    options = dataclasses.replace(recipe.options(on_gpu), schedule=field_schedule)
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
    options, objective = recipe.complete(options, _objective(config, on_gpu), field.scene_box.contracted)
    has_kernels = implementation("hash_grid", device) is not None
    if on_device is not None and kind.has_graph_step and has_kernels:
        from unrender.training.graph_training import GraphOptions, GraphTraining  # loads Warp

        graph = GraphOptions(samples=options.samples, schedule=schedule_of(field_schedule, HashSchedule()))
        pixels, depths = shards[0].pixels, shards[0].depths
        depths_on_device = None if depths is None else depths.on_device(device)
        on_graph = GraphTraining(field, on_device, graph, objective, seed, pixels.state(), depths_on_device)
        return cast("Training[AnyField]", on_graph)
    return FieldTraining(
        field, options, shards, objective, seed, num_shards=num_shards, num_frames=len(frames)
    )


def _objective(config: FieldConfig, on_gpu: bool) -> Objective:
    """Return the objective that all fields have in common."""
    weight = DEPTH_LOSS_WEIGHT if config.depth_loss_weight is None else config.depth_loss_weight
    return Objective(
        weight, background=config.background, white_fraction=GPU_WHITE_FRACTION if on_gpu else 0.0
    )


def is_gpu(device: torch.device) -> bool:
    """Say whether the kernels for GPUs train there."""
    return device.type == "cuda"
