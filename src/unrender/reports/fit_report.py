"""A run that fits a field: progress and live report during training, the saved field, and the report at the end."""

import logging
import shlex
from collections.abc import Iterator
from typing import Any, TypeVar

from unrender.errors import FileAccessError
from unrender.reports.field_report import finish
from unrender.reports.live_report import EventWriter, LiveReport, StepRecord, describe
from unrender.runs.field_run import FieldRun
from unrender.runs.folder import write_json
from unrender.runs.last_resort import save_in_need
from unrender.runs.progress import RecordedSteps, run_steps
from unrender.training.checkpoints import CHECKPOINT, saved_step
from unrender.training.saved_fields import save_field
from unrender.training.step import TrainingStep
from unrender.workers import current_workers

log = logging.getLogger("unrender")
AnyStep = TypeVar("AnyStep", bound=TrainingStep[Any])


def train_with_report(
    run: FieldRun, steps: Iterator[AnyStep], events: EventWriter | None
) -> RecordedSteps[AnyStep, StepRecord]:
    """Train to the end or until a signal, save the field, evaluate it and write the report; return the steps.

    Of several workers, the first one writes; the others are done when the training is.
    """
    workers = current_workers()
    log.info("%s is updated during training", run.folder / "report.html")
    live = LiveReport(run, events)
    recorded = RecordedSteps(steps, live.record)
    run_steps(recorded, describe, workers=workers)
    recorded.close()
    if not workers.is_first:
        return recorded
    if events is not None:
        events.close()
    last = recorded.last
    _save(run, last)
    if last.exposures is not None:
        names = [frame.name for frame in run.scene.split("train")]
        write_json(run.folder / "exposures.json", dict(zip(names, last.exposures.tolist(), strict=True)))
    live.write_curves()
    if not recorded.is_finished and (run.folder / CHECKPOINT).is_file():
        print(f"resume with: {_resume_line(run)}", flush=True)
    log.info("saved the field; evaluating test views")
    training = {"training_psnr": last.losses["psnr"], "seconds": last.seconds, "steps": last.index}
    finish(run, last.result, training, live.curves(), is_stopped=not recorded.is_finished)
    return recorded


def _save(run: FieldRun, last: TrainingStep[Any]) -> None:
    """Save the field; if the disk is full, replace an older checkpoint by it, or save it elsewhere."""
    if not run.folder.is_dir():
        log.warning("%s has disappeared during training: creating it again", run.folder)
        run.start()
    try:
        save_field(last.result, run.field_file)
    except FileAccessError as error:
        if saved_step(run.folder) == last.index:
            raise type(error)(
                f"{error}. The last checkpoint holds the field: free some space, then save it with: {_resume_line(run)}"
            ) from error
        save_in_need(
            lambda path: save_field(last.result, path), run.field_file, run.folder / CHECKPOINT, error
        )


def _resume_line(run: FieldRun) -> str:
    return shlex.join(["unrender", run.task, "--resume", str(run.folder)])
