"""Long computations: a progress bar, and Ctrl-C that keeps the results so far."""

import logging
import sys
from collections.abc import Callable, Generator, Iterator
from typing import Generic, Protocol, Self, TypeVar

from unrender.errors import InputError
from unrender.runs.interruption import Interrupted, handled_signals
from unrender.workers import ALONE, Workers, current_workers

log = logging.getLogger("unrender")


class Step(Protocol):
    """One step of an iterative task."""

    @property
    def index(self) -> int:
        """Index of this step."""

    @property
    def last_index(self) -> int:
        """Index of the last step."""


AnyStep = TypeVar("AnyStep", bound=Step)
Record = TypeVar("Record", bound=Step)


def run_views(
    views: Iterator[AnyStep],
    describe: Callable[[AnyStep], str],
    workers: Workers,
    *,
    allow_empty: bool = False,
) -> list[AnyStep]:
    """Run this worker's part of independent steps; return those of all workers to the first one, in order.

    Signals end it early, as in `run_steps`.
    """
    own = run_steps(views, describe, allow_empty=allow_empty or workers.count > 1)
    parts = workers.collect(own)
    return sorted((view for part in parts for view in part), key=lambda view: view.index)


def run_steps(
    steps: Iterator[AnyStep],
    describe: Callable[[AnyStep], str],
    *,
    allow_empty: bool = False,
    has_result: Callable[[AnyStep], bool] = lambda _: True,
    workers: Workers = ALONE,
) -> list[AnyStep]:
    """Run a task to its end under a progress bar and return its steps.

    Ctrl-C, or a request to terminate, stops after the current step, and the steps so far are returned; a second one
    raises KeyboardInterrupt, and so does one that leaves no step that `has_result`, unless `allow_empty`. `workers` are
    those that take the same steps at the same time: a signal to one of them stops all.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    taken: list[AnyStep] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    console = Console(file=sys.stderr)
    is_silent = not console.is_terminal or not current_workers().is_first
    with (
        Progress(*columns, console=console, transient=True, disable=is_silent) as progress,
        handled_signals() as interruption,
    ):
        interruption.defer()
        bar = progress.add_task("starting", total=None)
        try:
            if interruption.is_requested and allow_empty:
                raise KeyboardInterrupt
            for step in steps:
                taken.append(step)
                description = describe(step)
                progress.update(bar, description=description, completed=step.index, total=step.last_index)
                if workers.any(interruption.is_requested) and step.index < step.last_index:
                    raise KeyboardInterrupt
        except KeyboardInterrupt as interrupt:
            interruption.end_early()
            is_empty = not taken or not has_result(taken[-1])
            if isinstance(interrupt, Interrupted) or (is_empty and not allow_empty):
                raise
            if taken:
                log.warning("stopped at step %d; partial result saved", taken[-1].index)
    return taken


def run_inner_steps(steps: Iterator[AnyStep]) -> list[AnyStep]:
    """Run a task within another one, which shows the progress; a signal ends it with KeyboardInterrupt."""
    taken: list[AnyStep] = []
    with handled_signals() as interruption:
        for step in steps:
            taken.append(step)
            if interruption.is_requested:
                raise KeyboardInterrupt
    return taken


class RecordedSteps(Generic[AnyStep, Record]):
    """Map the steps of a task to small records and keep only the last step whole: each may hold a large result."""

    def __init__(self, steps: Iterator[AnyStep], record: Callable[[AnyStep], Record]) -> None:
        self._steps, self._record = steps, record
        self._last: AnyStep | None = None
        self.is_finished = False
        """Whether the task ran to its end."""

    @property
    def last(self) -> AnyStep:
        """The most recent step; InputError if there was none."""
        if self._last is None:
            raise InputError("the run is already complete; give more --steps or --minutes")
        return self._last

    def close(self) -> None:
        """Close the task's generator, so that it can release its resources."""
        if isinstance(self._steps, Generator):
            self._steps.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record:
        try:
            step = self._last = next(self._steps)
        except StopIteration:
            self.is_finished = True
            raise
        return self._record(step)
