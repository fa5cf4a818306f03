"""unrender fit-volume: fit a voxel volume to posed images."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from unrender.data.scenes import load_scene
from unrender.fields.voxels import SparseVoxels
from unrender.reports import figures
from unrender.reports.field_report import finish
from unrender.runs.field_run import EvaluationOptions, FieldRun, choose_background
from unrender.runs.folder import start_run, write_curves
from unrender.runs.progress import RecordedSteps, run_steps
from unrender.tasks.volume.config import FitVolume
from unrender.tasks.volume.fit_volume import fit_volume
from unrender.training.saved_fields import save_field
from unrender.training.step import TrainingStep
from unrender.viewer.training import watched_in_browser

log = logging.getLogger("unrender")


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """Numbers of a training step, without its volume."""

    index: int
    last_index: int
    psnr: float
    num_voxels: int
    seconds: float


def command(
    scene: Annotated[Path, tyro.conf.Positional],
    /,
    config: FitVolume = FitVolume(),
    evaluation: EvaluationOptions = EvaluationOptions(),
    output: Path | None = None,
    view: bool = False,
) -> None:
    """Fit a voxel volume with density and color to posed images (Blender, nerfstudio, instant-ngp, COLMAP or LLFF).

    Example: unrender fit-volume chair/ --minutes 5

    Args:
        scene: Folder of the scene, or its JSON or npy file.
        config: Training.
        evaluation: Evaluation and exports after training.
        output: Output folder. Default: runs/fit-volume/NAME-TIME.
        view: Open an interactive viewer in the browser during training.
    """
    evaluation.check()
    photos = load_scene(scene)
    steps = fit_volume(photos, config)
    folder = start_run("fit-volume", photos.name, output, {})
    background = choose_background(config.background, photos)
    if view:
        steps = watched_in_browser(steps, photos.frames, background)
    recorded = RecordedSteps(steps, _record)
    run = FieldRun("fit-volume", scene, photos, config, evaluation, folder, background)
    run.start()
    records = run_steps(recorded, _describe)
    last = recorded.last
    longest = max(last.result.table.shape)
    if longest < config.resolution:
        log.warning(
            "reached %d of %d voxels along the longest side: increase --minutes or lower --resolution",
            longest,
            config.resolution,
        )
    save_field(last.result, run.field_file)
    series = _series(records)
    write_curves(folder, series)
    log.info("saved the volume; evaluating test views")
    training = {"training_psnr": last.losses["psnr"], "seconds": last.seconds, "steps": last.index}
    finish(run, last.result, training, figures.curves(series, {}))


def _record(step: TrainingStep[SparseVoxels]) -> StepRecord:
    return StepRecord(
        step.index, step.last_index, step.losses["psnr"], step.result.table.num_voxels, step.seconds
    )


def _describe(record: StepRecord) -> str:
    return f"step {record.index:5d}  {record.psnr:5.2f} dB  {record.num_voxels:9,d} voxels  {record.seconds:5.0f} s"


def _series(records: Sequence[StepRecord]) -> dict[str, list[float]]:
    errors = [10 ** (-record.psnr / 10) for record in records]
    return {"training MSE": errors, "voxels": [float(record.num_voxels) for record in records]}
