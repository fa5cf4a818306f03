"""What is to be seen of a radiance field while it is learned: a held-out view in report.html, and event files."""

import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unrender.errors import InputError
from unrender.fields.protocol import RadianceField, RenderOutput
from unrender.geometry.camera import Camera
from unrender.io.files import FileAccessError
from unrender.render.colormaps import distance_colors
from unrender.reports import evaluation, figures
from unrender.reports.evaluation import small_png
from unrender.reports.field_report import FieldRun
from unrender.reports.html import Picture, Section, write_report
from unrender.runs.folder import write_curves
from unrender.training.step import TrainingStep

EVENTS = "tensorboard"
"""Folder of event files in a run."""
log = logging.getLogger("unrender")
SECONDS_BETWEEN_LOOKS, SHARE_OF_LOOKS = 30.0, 0.05
"""Between two views, at least; and the share of the time that is spent with them, at most."""
VIEW_SIDE = 256
"""Pixels of the view's longer side, at most."""
CURVE_POINTS = 400


@dataclasses.dataclass(frozen=True)
class Note:
    """What is kept of a step: not its field, which would take memory for each."""

    index: int
    last_index: int
    psnr: float
    samples: int
    seconds: float
    held_out: float | None
    """PSNR of pictures that are not learned from, when last looked at."""
    is_new: bool
    """Whether that was after this step."""


def words(note: Note) -> str:
    """Say in a line how far the work is."""
    unseen = "" if note.held_out is None else f"  held out {note.held_out:5.2f} dB"
    return f"step {note.index:6d}  {note.psnr:5.2f} dB{unseen}  {note.samples:7,d} samples"


class Events:
    """Event files of TensorBoard."""

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                "--tensorboard: needs the package tensorboard: pip install 'unrender[tensorboard]'"
            ) from error
        self._open: Any = SummaryWriter
        self._writer: Any = None

    def add(self, folder: Path, step: TrainingStep[RadianceField]) -> None:
        """Write the figures of a step; those that an earlier, broken run wrote of later steps no longer count."""
        if self._writer is None:
            self._writer = self._open(str(folder), purge_step=step.index)
        values = {f"training/{name}": value for name, value in step.losses.items()}
        values |= {"samples": step.num_samples, "seconds": step.seconds}
        values |= {} if step.held_out_psnr is None else {"held_out/psnr": step.held_out_psnr}
        for name, value in values.items():
            self._writer.add_scalar(name, value, step.index)

    def show(self, seen: RenderOutput, index: int) -> None:
        """Write a view."""
        if self._writer is not None:
            self._writer.add_image("held_out/view", seen.color, index, dataformats="HWC")

    def close(self) -> None:
        """Write what is not written yet."""
        if self._writer is not None:
            self._writer.close()


class Live:
    """Notes of the steps; every so often, a view in the report, which is replaced as a whole."""

    def __init__(self, run: FieldRun, events: Events | None) -> None:
        self._run, self._events = run, events
        self._notes: list[Note] = []
        self._due = time.perf_counter() + SECONDS_BETWEEN_LOOKS

    def note(self, step: TrainingStep[RadianceField]) -> Note:
        """Note a step, and look at its field if that is due."""
        before = self._notes[-1].held_out if self._notes else None
        value, is_new = (before, False) if step.held_out_psnr is None else (step.held_out_psnr, True)
        psnr = step.losses["psnr"]
        note = Note(step.index, step.last_index, psnr, step.num_samples, step.seconds, value, is_new)
        self._notes.append(note)
        if self._events is not None:
            self._events.add(self._run.folder / EVENTS, step)
        begin = time.perf_counter()
        if begin >= self._due:
            self._look(step, note)
            spent = time.perf_counter() - begin
            self._due = begin + max(SECONDS_BETWEEN_LOOKS, spent / SHARE_OF_LOOKS)
        return note

    def _look(self, step: TrainingStep[RadianceField], note: Note) -> None:
        frames = self._run.scene.split("test") or self._run.scene.split("train")
        camera = _small(frames[0].camera)
        seen = step.result.render(camera, self._run.behind, quick=True)
        if self._events is not None:
            self._events.show(seen, step.index)
        behind = step.result.background if self._run.behind is None else self._run.behind
        photo = evaluation.photo_before(frames[0].load(), behind)
        distance = distance_colors(seen.distance, seen.opacity)
        shown = {"the photo": photo, "now": seen.color, "distance, near dark, far bright": distance}
        sections = [
            Section(
                f"After {note.seconds:.0f} seconds",
                f"{words(note)} of about {note.last_index:,} steps. This page renews itself.",
                [Picture(f"{frames[0].name}: {name}", [small_png(image)]) for name, image in shown.items()],
            ),
            Section("How it goes", svg=self.curves()),
        ]
        renew = max(1, round(SECONDS_BETWEEN_LOOKS))
        try:
            write_report(self._run.folder / "report.html", self._run.title, sections, renew_seconds=renew)
        except FileAccessError as error:  # the work itself can go on
            log.warning("no report at step %d: %s", note.index, error)

    def curves(self) -> str:
        """Draw how the errors fell; return an SVG."""
        errors, steps = self._series()
        return figures.curves(errors, {}, steps)

    def write_curves(self) -> None:
        """Write how the errors fell into the folder of the run."""
        write_curves(self._run.folder, *self._series())

    def _series(self) -> tuple[dict[str, list[float]], dict[str, list[int]]]:
        """Return errors, of pixels that were learned from and of others, and at which steps."""
        name, other = "mean squared error of rays", "of rays that are held out"
        steps = {name: [], other: [note.index for note in self._notes if note.is_new]}
        errors: dict[str, list[float]] = {name: [], other: []}
        for part in _parts(self._notes):
            steps[name].append(part[-1].index)
            errors[name].append(sum(_error(note.psnr) for note in part) / len(part))
        errors[other] = [_error(note.held_out) for note in self._notes if note.is_new and note.held_out]
        return {key: values for key, values in errors.items() if values}, steps


def _error(psnr: float) -> float:
    return float(10 ** (-psnr / 10))


def _parts(notes: Sequence[Note]) -> list[Sequence[Note]]:
    """Divide notes into parts that are as long as each other, one for each point of a curve."""
    count = min(len(notes), CURVE_POINTS)
    return [notes[index * len(notes) // count : (index + 1) * len(notes) // count] for index in range(count)]


def _small(camera: Camera) -> Camera:
    scale = min(1.0, VIEW_SIDE / max(camera.height, camera.width))
    return camera.resize(*(max(1, round(side * scale)) for side in (camera.height, camera.width)))
