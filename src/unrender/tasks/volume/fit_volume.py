"""Volume from posed images: voxels with density and color, by differentiable volume rendering."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from unrender.data.scenes import Scene
from unrender.devices import resolve_device
from unrender.fields.trainable import FieldOptions
from unrender.fields.voxels import SparseVoxels
from unrender.tasks.volume.config import FitVolume, check
from unrender.training.field_training import Objective
from unrender.training.fit_field import Chosen, Recipe, fit_field
from unrender.training.schedule import Schedule
from unrender.training.step import TrainingStep

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

    def options(on_gpu: bool) -> FieldOptions:
        return FieldOptions(
            steps=config.steps, rays=config.rays, resolution=final_resolution(config), degree=config.degree
        )

    def complete(options: FieldOptions, objective: Objective, contracted: bool) -> Chosen:
        variation, sparsity = config.total_variation_loss_weight, config.sparsity_loss_weight
        usual = (UNBOUNDED_TOTAL_VARIATION, UNBOUNDED_SPARSITY) if contracted else (0.0, 0.0)
        smoothness = usual[0] if variation is None else variation
        sparsity = usual[1] if sparsity is None else sparsity
        return dataclasses.replace(options, smoothness=smoothness, sparsity=sparsity), objective

    recipe = Recipe(SparseVoxels, options, complete)
    return fit_field(
        "fit_volume", scene, config, recipe, schedule=schedule, checkpoints=checkpoints, resume=resume
    )


def final_resolution(config: FitVolume) -> int:
    """Return the voxels along the longest side of the final grid."""
    if config.resolution is not None:
        return config.resolution
    return CPU_RESOLUTION if resolve_device(config.device).type == "cpu" else GPU_RESOLUTION
