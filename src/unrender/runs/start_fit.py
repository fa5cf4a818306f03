"""Starting, or resuming, a run that fits a field to a scene."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from unrender.data.depth_units import notes_on_depth
from unrender.data.scenes import Scene, load_scene
from unrender.io.files import MissingFileError
from unrender.runs.field_run import EvaluationOptions, FieldRun, choose_background
from unrender.runs.folder import choose_shared_folder, create_run_folder
from unrender.runs.resume import Config, resumed_config
from unrender.training.shards import resolve_shards
from unrender.training.step import TrainingStep
from unrender.workers import current_workers, is_launched

log = logging.getLogger("unrender")
AnyStep = TypeVar("AnyStep", bound=TrainingStep[Any], covariant=True)
Settings = TypeVar("Settings", contravariant=True)


class Fit(Protocol[Settings, AnyStep]):
    """`fit_nerf` or `fit_volume`."""

    def __call__(
        self, scene: Scene, config: Settings, *, checkpoints: Path | None = None, resume: Path | None = None
    ) -> Iterator[AnyStep]:
        """Return an iterator of training steps."""


def start_fit(
    task: str,
    fit: Fit[Config, AnyStep],
    source: Path,
    config: Config,
    evaluation: EvaluationOptions,
    *,
    depth_scale: float | None = None,
    resume: Path | None,
    output: Path | None,
) -> tuple[FieldRun, Iterator[AnyStep]]:
    """Load a scene, start training on it, and create the folder of the run; or continue the run `resume`."""
    evaluation.check()
    if resume is not None:
        config = resumed_config(resume, task, config, output)
        if not source.exists():
            raise MissingFileError(
                f"{source}: the scene of {resume} does not exist; give its new path: "
                f"unrender {task} SCENE --resume {resume}"
            )
    workers = current_workers()
    if is_launched():
        config = dataclasses.replace(config, shards=resolve_shards(config.shards))
    scene = load_scene(source, depth_scale=depth_scale)
    if config.depth_loss_weight:
        for note in notes_on_depth(scene.notes):
            log.warning("%s", note)
    folder = resume or choose_shared_folder(task, scene.name, output, workers)
    steps = fit(scene, config, checkpoints=folder, resume=resume)
    background = choose_background(config.background, scene)
    run = FieldRun(task, source, scene, config, evaluation, folder, background, depth_scale)
    if workers.is_first:
        if resume is None:
            create_run_folder(folder, task, {})
        run.start()
    return run, steps
