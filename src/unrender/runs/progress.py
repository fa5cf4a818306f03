"""Long computations: a progress bar, and Ctrl-C that keeps the results so far."""

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from types import FrameType
from typing import Generic, Protocol, Self, TypeVar

from unrender.errors import InputError

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


def run_steps(
    steps: Iterator[AnyStep], describe: Callable[[AnyStep], str], *, allow_empty: bool = False
) -> list[AnyStep]:
    """Run a task to its end under a progress bar and return its steps.

    Ctrl-C stops after the current step, a second Ctrl-C stops immediately; the steps so far are returned. If there are
    none, KeyboardInterrupt is raised unless `allow_empty`.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    taken: list[AnyStep] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    console = Console(file=sys.stderr)
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
        _deferred_interrupt() as interrupted,
    ):
        bar = progress.add_task("starting", total=None)
        try:
            for step in steps:
                taken.append(step)
                description = describe(step)
                progress.update(bar, description=description, completed=step.index, total=step.last_index)
                if interrupted.is_set():
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            if not taken and not allow_empty:
                raise
            if taken:
                log.warning("stopped at step %d; partial result saved", taken[-1].index)
    return taken


@contextlib.contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Record the first Ctrl-C instead of interrupting a step halfway; the second one interrupts."""
    interrupted = threading.Event()

    def record(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()
        log.warning("stopping after this step; press Ctrl-C again to stop immediately")

    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not is_ours:  # in another thread, or under a program with a handler of its own
        yield interrupted
        return
    signal.signal(signal.SIGINT, record)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
