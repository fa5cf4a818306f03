"""Volume from posed images: voxels with density and color, by differentiable volume rendering."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from unrender.data.depth_supervision import DepthSupervision
from unrender.data.pixels import PixelSource
from unrender.data.scenes import Scene
from unrender.errors import InputError
from unrender.fields.voxels import SparseVoxels
from unrender.tasks.volume.config import FitVolume, check
from unrender.tasks.volume.schedule import VolumeSchedule
from unrender.tasks.volume.training import VolumeTraining
from unrender.training.checkpoints import Origin
from unrender.training.initial_occupancy import find_space
from unrender.training.loop import Budget, Job, train
from unrender.training.step import TrainingStep

DEFAULT_STEPS = 4000
"""Training budget where neither steps nor minutes are given."""


def fit_volume(
    scene: Scene,
    config: FitVolume = FitVolume(),
    *,
    schedule: VolumeSchedule = VolumeSchedule(),
    checkpoints: Path | None = None,
    resume: Path | None = None,
) -> Iterator[TrainingStep[SparseVoxels]]:
    """Fit voxels to the training frames of a scene; every step has a usable field, the last one the result.

    With `checkpoints`, a folder, all that is needed to resume is saved there every few minutes and at the end, also if
    the iterator is closed early. `resume` is such a folder: training continues from there with the same numbers as if
    it had never stopped, unless `minutes` are given. `schedule` says when resolutions and learning rates change; the
    default suits all scenes.

    Source: Fridovich-Keil and Yu et al. 2022 (Plenoxels), with the log of the density between the voxels' corners.
    Raises InputError before the first step for a scene without training frames, or whose masks exclude everything, and
    for settings that differ from those of the training to be resumed.
    """
    if config.minutes is None and config.steps is None:
        config = dataclasses.replace(config, steps=DEFAULT_STEPS)
    check(config)
    frames = scene.split("train")
    if not frames:
        raise InputError(f"fit_volume: the scene {scene.name} has no training frames")

    def start(seed: int) -> VolumeTraining:
        pixels = PixelSource(frames, memory_mib=config.memory_mib, seed=seed)
        depths = DepthSupervision(frames, seed=seed) if config.depth > 0 else None
        space = find_space(scene, frames, config.space, config.resolution // schedule.coarsening[0][1])
        return VolumeTraining(space, pixels, depths or None, config, schedule, seed)

    settings = dataclasses.asdict(config) | {"schedule": dataclasses.asdict(schedule) | {"loop": None}}
    return train(
        Job(
            start,
            config.seed,
            Budget(config.steps, config.minutes),
            schedule.loop,
            Origin("fit_volume", scene, settings),
            scene.split("test"),
            "black" if config.background == "black" else "white",
            checkpoints,
            resume,
        )
    )
