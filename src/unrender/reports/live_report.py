"""The report during training: a test view in report.html at intervals, and TensorBoard event files."""

import dataclasses
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unrender._wording import counted
from unrender.errors import FileAccessError, InputError
from unrender.fields.trainable import TrainableField
from unrender.render.march import RenderOutput
from unrender.reports import evaluation, figures
from unrender.reports.evaluation import small_png
from unrender.reports.field_report import report_title
from unrender.reports.html import Figure, Section, write_report
from unrender.runs.field_run import EVENTS, FieldRun
from unrender.runs.folder import write_curves
from unrender.training.step import TrainingStep
from unrender.training.targets import composited_on
from unrender.workers import current_workers

log = logging.getLogger("unrender")
SECONDS_BETWEEN_UPDATES, MAX_TIME_FRACTION = 30.0, 0.05
"""Shortest time between two updates of the report, and the largest fraction of the time spent on them."""
VIEW_SIZE = 256
"""Longer side of the rendered view in pixels, at most."""
CURVE_POINTS = 400


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """Numbers of a training step, without its field."""

    index: int
    last_index: int
    psnr: float
    size: tuple[str, int]
    """Samples of the step, or voxels of the field: the word and the number."""
    seconds: float
    held_out: float | None
    """PSNR of the most recent evaluation on held-out pixels."""
    is_new: bool
    """Whether that evaluation was after this step."""


def describe(record: StepRecord) -> str:
    """Return the progress line of a step."""
    held_out = "" if record.held_out is None else f"  held out {record.held_out:5.2f} dB"
    return f"step {record.index:6d}  {record.psnr:5.2f} dB{held_out}  {record.size[1]:7,d} {record.size[0]}"


def _size(step: TrainingStep[TrainableField]) -> tuple[str, int]:
    if step.num_samples is not None:
        return "samples", step.num_samples
    return "voxels", int(step.result.describe().get("num_voxels", 0))


class EventWriter:
    """Writes TensorBoard event files."""

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                "--tensorboard: needs the package tensorboard: pip install 'unrender[tensorboard]'"
            ) from error
        self._open: Any = SummaryWriter
        self._writer: Any = None

    def add(self, folder: Path, step: TrainingStep[TrainableField]) -> None:
        """Write the scalars of a step; later steps of an interrupted run are purged."""
        if self._writer is None:
            self._writer = self._open(str(folder), purge_step=step.index)
        values = {f"training/{name}": value for name, value in step.losses.items()}
        name, count = _size(step)
        values |= {name: count, "seconds": step.seconds}
        values |= {} if step.held_out_psnr is None else {"held_out/psnr": step.held_out_psnr}
        for name, value in values.items():
            self._writer.add_scalar(name, value, step.index)

    def add_view(self, rendered: RenderOutput, index: int) -> None:
        """Write a rendered view."""
        if self._writer is not None:
            self._writer.add_image("held_out/view", rendered.color, index, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the files."""
        if self._writer is not None:
            self._writer.close()


class LiveReport:
    """Records training steps and updates report.html at intervals."""

    def __init__(self, run: FieldRun, events: EventWriter | None) -> None:
        self._run, self._events = run, events
        self._records: list[StepRecord] = []
        self._due = time.perf_counter() + SECONDS_BETWEEN_UPDATES if current_workers().is_first else math.inf

    def record(self, step: TrainingStep[TrainableField]) -> StepRecord:
        """Record a step; update the report if it is due."""
        previous = self._records[-1].held_out if self._records else None
        value, is_new = (previous, False) if step.held_out_psnr is None else (step.held_out_psnr, True)
        psnr = step.losses["psnr"]
        record = StepRecord(step.index, step.last_index, psnr, _size(step), step.seconds, value, is_new)
        self._records.append(record)
        if self._events is not None:
            try:
                self._events.add(self._run.folder / EVENTS, step)
            except OSError as error:  # training continues
                log.warning("step %d: no more event files for TensorBoard: %s", record.index, error)
                self._events = None
        begin = time.perf_counter()
        if begin >= self._due:
            self._update(step, record)
            spent = time.perf_counter() - begin
            self._due = begin + max(SECONDS_BETWEEN_UPDATES, spent / MAX_TIME_FRACTION)
        return record

    def _update(self, step: TrainingStep[TrainableField], record: StepRecord) -> None:
        frame = (self._run.scene.split("test") or self._run.scene.split("train"))[0]
        size = min(VIEW_SIZE, max(frame.camera.height, frame.camera.width))
        rendered = step.result.render(frame.camera.resize_longest(size), self._run.background, quick=True)
        if self._events is not None:
            self._events.add_view(rendered, step.index)
        background = step.result.background if self._run.background is None else self._run.background
        view = frame.load_image()
        target = composited_on(background.detach().to(view.image.device), view.image, view.alpha)
        sections = [
            Section(
                f"After {record.seconds:.0f} seconds",
                f"{describe(record)}, of about {counted(record.last_index, 'step')}. "
                "This page refreshes automatically.",
                [
                    Figure(f"{frame.name}: ground truth", [small_png(target)]),
                    Figure(f"{frame.name}: rendered", [small_png(rendered.color)]),
                    evaluation.distance_figure(frame.name, rendered),
                ],
            ),
            Section("Training curves", svg=self.curves()),
        ]
        refresh, path = max(1, round(SECONDS_BETWEEN_UPDATES)), self._run.folder / "report.html"
        try:
            write_report(path, report_title(self._run), sections, refresh_seconds=refresh)
        except FileAccessError as error:  # training continues
            log.warning("step %d: the report was not updated: %s", record.index, error)

    def curves(self) -> str:
        """Plot the training and held-out errors; return an SVG."""
        errors, steps = self._series()
        return figures.curves(errors, {}, steps)

    def write_curves(self) -> None:
        """Write the training and held-out errors to curves.json."""
        write_curves(self._run.folder, *self._series())

    def _series(self) -> tuple[dict[str, list[float]], dict[str, list[int]]]:
        """Return the mean squared errors of training and of held-out rays, and their steps."""
        training, held_out = "training MSE", "held-out MSE"
        steps = {training: [], held_out: [record.index for record in self._records if record.is_new]}
        errors: dict[str, list[float]] = {training: [], held_out: []}
        for chunk in _chunks(self._records):
            steps[training].append(chunk[-1].index)
            errors[training].append(sum(_mse(record.psnr) for record in chunk) / len(chunk))
        errors[held_out] = [_mse(r.held_out) for r in self._records if r.is_new and r.held_out]
        return {key: values for key, values in errors.items() if values}, steps


def _mse(psnr: float) -> float:
    return float(10 ** (-psnr / 10))


def _chunks(records: Sequence[StepRecord]) -> list[Sequence[StepRecord]]:
    """Divide records into chunks of equal length, one for each point of a curve."""
    count = min(len(records), CURVE_POINTS)
    return [records[i * len(records) // count : (i + 1) * len(records) // count] for i in range(count)]
