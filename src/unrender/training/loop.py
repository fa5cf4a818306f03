"""The training loop: an iterator of steps that evaluates, saves, recovers and resumes."""

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

import torch
from torch import Tensor

from unrender.data.frames import Frame
from unrender.errors import UnrenderError
from unrender.io.files import DiskFullError, check_space, reading
from unrender.training.checkpoints import CHECKPOINT, CheckpointWriter, Origin, read_checkpoint
from unrender.training.evaluation import HeldOutPatches
from unrender.training.schedule import Schedule
from unrender.training.state import State, size_of
from unrender.training.step import AnyField, Losses, Measured, TrainingStep
from unrender.workers import current_workers

Result = TypeVar("Result")
log = logging.getLogger("unrender")
MEMORY = 0.98
"""Weight of the past in running means of the loss."""
REPORT_BYTES = 2**20
"""Size of a report, its curves and metrics, about."""


class Training(Protocol[AnyField]):
    """A field in training: what a step does, and all that the next one depends on."""

    @property
    def field(self) -> AnyField:
        """The field as it is now."""

    @property
    def exposures(self) -> Tensor | None:
        """Factor of each training image and channel, where exposure is optimized."""

    def step(self, progress: float) -> Measured:
        """Take one step at a progress of 0 to 1; parameters stay as they are where the loss is not finite."""

    def reseed(self, seed: int) -> None:
        """Continue with other random numbers."""

    def state(self) -> State:
        """Return all that later steps depend on; later steps may change its tensors."""

    def restore(self, state: State) -> None:
        """Return to a state; later steps do not change its tensors."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps, or minutes of wall-clock time."""

    steps: int | None
    minutes: float | None = None

    def progress(self, index: int, seconds: float) -> float:
        """Return how much of the budget is spent, from 0 to 1."""
        if self.steps is not None:
            return index / self.steps
        assert self.minutes is not None
        return seconds / (60 * self.minutes)

    def last_index(self, index: int, seconds: float) -> int:
        """Return the number of the last step; with minutes, an estimate."""
        return self.steps or max(index, round(index / max(self.progress(index, seconds), 1e-3)))


@dataclasses.dataclass(frozen=True)
class Job(Generic[AnyField]):
    """A training to run: how it starts, for how long, and where it is saved."""

    start: Callable[[int], Training[AnyField]]
    """Make the training from a seed."""
    seed: int
    budget: Budget
    schedule: Schedule
    origin: Origin
    test_frames: Sequence[Frame] = ()
    """Frames to evaluate on while training."""
    background: Literal["white", "black"] = "white"
    """What transparent test frames are composited on."""
    checkpoints: Path | None = None
    """Folder to save checkpoints to."""
    resume: Path | None = None
    """Folder of the checkpoint to resume from."""


def train(job: Job[AnyField]) -> Iterator[TrainingStep[AnyField]]:
    """Load the data, and return an iterator that takes a step whenever one is requested.

    The state is saved before the first step, at intervals, and after the last one or when the iterator is closed early.
    Time between steps does not count.
    """
    began = time.perf_counter()
    current_workers().require_same("the scene or the settings", job.origin.fingerprint())
    resumed = None if job.resume is None else read_checkpoint(job.resume, job.origin)
    run = _Run(job, resumed)
    run.check_space()
    patches = HeldOutPatches(job.test_frames, job.background)
    return _steps(run, patches, began - run.position.seconds)


def _steps(run: "_Run[AnyField]", patches: HeldOutPatches, began: float) -> Iterator[TrainingStep[AnyField]]:
    """Take steps until the budget is spent: at least one; none if a resumed run has nothing left to do."""
    job, schedule, position = run.job, run.job.schedule, run.position
    evaluations = _Timer(
        schedule.evaluation_seconds, schedule.evaluation_seconds, schedule.evaluation_fraction
    )
    saves = _Timer(
        schedule.first_checkpoint_seconds, schedule.checkpoint_seconds, schedule.checkpoint_fraction
    )
    if position.index == 0:
        run.save()
    if position.index > 0 and job.budget.progress(position.index, position.seconds) >= 1:
        yield run.describe(None)
    workers = current_workers()
    try:
        while True:
            progress, is_save_due = workers.numbers_of_first(run.progress(), saves.is_due())
            if is_save_due:
                saves.run(run.save)
                run.position.seconds = time.perf_counter() - began
            if progress >= 1 and run.position.index > 0:
                break
            run.step(progress)
            run.position.seconds = time.perf_counter() - began
            held_out = None
            if workers.is_first and evaluations.is_due():
                held_out = evaluations.run(lambda: patches.psnr(run.training.field))
            run.position.seconds = handed_over = time.perf_counter() - began
            yield run.describe(held_out)
            began = time.perf_counter() - handed_over
    except GeneratorExit:  # closed between two steps; a step that fails is not saved
        run.save(wait=True)
        raise
    run.save(wait=True)


@dataclasses.dataclass
class Position:
    """How far a training is, and its running means."""

    seed: int
    index: int = 0
    first_index: int = 0
    """Steps that were taken before training was restarted."""
    seconds: float = 0.0
    num_samples: int | None = None
    color: Tensor | float = 0.0
    mean_color: Tensor | float = 0.0
    mean_constant: Tensor | float = 0.0

    def record(self, measured: Measured) -> None:
        """Count a step, and update the means without waiting for the device."""
        past = MEMORY if self.index > self.first_index else 0.0
        self.index += 1
        self.num_samples, self.color = measured.num_samples, measured.color
        self.mean_color = past * self.mean_color + (1 - past) * measured.color.double()
        self.mean_constant = past * self.mean_constant + (1 - past) * measured.constant.double()

    def copy(self) -> Self:
        """Return a position that later steps do not change."""
        return dataclasses.replace(self)

    def numbers(self) -> dict[str, Any]:
        """Return the position as JSON can hold it."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value.item() if isinstance(value, Tensor) else value for name, value in values.items()}

    @classmethod
    def from_numbers(cls, numbers: dict[str, Any]) -> Self:
        """Return the position that has these numbers; raise TypeError or ValueError if they are none."""
        values = {field.name: numbers[field.name] for field in dataclasses.fields(cls)}
        for name, value in values.items():
            is_count = name in ("seed", "index", "first_index", "num_samples")
            if name == "num_samples" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int if is_count else int | float):
                raise TypeError(f"{name} should be a number, got {value!r}")
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is out of range: {value}")
        return cls(**values)


class _Run(Generic[AnyField]):
    """A training with its position, and a good state to return to."""

    def __init__(self, job: Job[AnyField], resumed: State | None) -> None:
        self.job, self.position = job, Position(job.seed)
        self._writer = None if job.checkpoints is None else CheckpointWriter(job.checkpoints, job.origin)
        if resumed is not None:
            with self._reading():
                self.position = Position.from_numbers(resumed.numbers)
        self._start()
        if resumed is not None:
            with self._reading():
                self.training.restore(State(resumed.tensors, resumed.numbers["training"]))
            self._take_snapshot()

    def _reading(self) -> contextlib.AbstractContextManager[None]:
        """Let errors of what a checkpoint holds name its file."""
        assert self.job.resume is not None
        return reading(self.job.resume / CHECKPOINT)

    def _start(self) -> None:
        self.training = self.job.start(self.position.seed)
        self._is_finite = torch.tensor(True)
        self._recoveries = 0
        self._take_snapshot()

    def progress(self) -> float:
        """Return how much of the budget is spent, from 0 to 1."""
        return self.job.budget.progress(self.position.index, self.position.seconds)

    def _take_snapshot(self) -> None:
        self._snapshot = self.training.state().copy(), self.position.copy()

    def step(self, progress: float) -> None:
        """Take a step; restart training, once, if it has collapsed."""
        self._step(progress)
        schedule, position = self.job.schedule, self.position
        if position.index - position.first_index == schedule.collapse_step and (
            float(position.mean_color) > schedule.collapse_ratio * float(position.mean_constant)
        ):
            self._restart()
            self._step(progress)

    def _step(self, progress: float) -> None:
        schedule = self.job.schedule
        while True:
            measured, index = self.training.step(progress), self.position.index + 1
            self._is_finite = self._is_finite.to(measured.is_finite.device) & measured.is_finite
            takes_snapshot = index % schedule.snapshot_steps == 0
            is_checked = takes_snapshot or index % schedule.steps_between_checks == 0
            if not is_checked or bool(self._is_finite):
                break
            self._recover(index)
        self.position.record(measured)
        if takes_snapshot:
            self._take_snapshot()

    def _recover(self, index: int) -> None:
        """Return to a good state, and continue with other random numbers."""
        self._recoveries += 1
        if self._recoveries > self.job.schedule.max_recoveries:
            raise UnrenderError(
                f"{self.job.origin.task}: step {index}: the loss or its gradient is not finite, after "
                f"{self.job.schedule.max_recoveries} returns to a good state; images or cameras may hold values that "
                "are not finite"
            )
        state, position = self._snapshot
        self.training.restore(state)
        self.training.reseed(position.seed + 1000 * self._recoveries)
        self._is_finite = torch.tensor(True)
        self.position = position.copy()
        log.warning("step %d: the loss is not finite: returning to step %d", index, position.index)

    def _restart(self) -> None:
        """Start with another seed; fail if that was done before."""
        position = self.position
        if position.seed != self.job.seed:
            raise UnrenderError(
                f"{self.job.origin.task}: training collapsed to a constant color within "
                f"{self.job.schedule.collapse_step} steps, with two seeds: poses or bounds may be wrong "
                "(`unrender inspect` shows them), or the near plane cuts the scene away"
            )
        log.warning("training collapsed to a constant color: restarting with another seed")
        self.position = Position(
            self.job.seed + 1, position.index, position.index, position.seconds, position.num_samples
        )
        self._start()

    def describe(self, held_out_psnr: float | None) -> TrainingStep[AnyField]:
        """Return the step that was taken last."""
        position, training = self.position, self.training
        return TrainingStep(
            position.index,
            self.job.budget.last_index(position.index, position.seconds),
            Losses(position.color),
            position.num_samples,
            position.seconds,
            training.field,
            held_out_psnr,
            training.exposures,
        )

    def check_space(self) -> None:
        """Raise DiskFullError if the disk has no space for the field; warn if it has none for all that is written."""
        folder, trained = self.job.checkpoints, self.training.field
        if folder is None:
            return
        now, growth = size_of(trained.contents()[0]), trained.expected_growth
        field, moments = round(growth * now), 2 * round(growth * size_of(dict(trained.named_parameters())))
        check_space(folder, field, "the field cannot be saved")
        checkpoint = size_of(self.training.state().tensors) + field - now + moments
        views = sum(frame.camera.height * frame.camera.width for frame in self.job.test_frames)
        sizes = f"about {_mib(field)} MiB for the field, {_mib(checkpoint)} for a checkpoint, {_mib(views)} for views"
        try:  # a checkpoint stays until the next one is written
            total = field + 2 * checkpoint + views + REPORT_BYTES
            check_space(folder, total, f"not all results may be saved ({sizes})", largest=checkpoint)
        except DiskFullError as error:
            log.warning("%s", error)

    def save(self, *, wait: bool = False) -> None:
        """Save a checkpoint, if they are requested and the state is good; `wait` until it is written.

        All workers have to take part; the first one writes.
        """
        if self._writer is None:
            return
        if bool(self._is_finite):
            state = self.training.state()
            numbers = self.position.numbers() | {"training": state.numbers}
            if current_workers().is_first:
                self._writer.save(State(state.tensors, numbers).saved())
        if wait:
            self._writer.wait()


def _mib(size: int) -> int:
    return math.ceil(size / 2**20)


class _Timer:
    """Says when something is due again: not too soon, and so that it takes a small fraction of the time."""

    def __init__(self, first: float, interval: float, fraction: float) -> None:
        self._next, self._interval, self._fraction = time.perf_counter() + first, interval, fraction

    def is_due(self) -> bool:
        """Return whether it is due."""
        return time.perf_counter() >= self._next

    def run(self, work: Callable[[], Result]) -> Result:
        """Run `work`, and return its result."""
        begin = time.perf_counter()
        result = work()
        spent = time.perf_counter() - begin
        self._next = begin + max(self._interval, spent / self._fraction)
        return result
