"""Long work under a progress bar."""

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
    """What every task yields."""

    @property
    def index(self) -> int:
        """Steps before this one."""

    @property
    def last_index(self) -> int:
        """No step comes after that one."""


AnyStep = TypeVar("AnyStep", bound=Step)
Note = TypeVar("Note", bound=Step)


def take_all(steps: Iterator[AnyStep], words: Callable[[AnyStep], str]) -> list[AnyStep]:
    """Take all steps; Ctrl-C ends them after the step at work, a second one at once: what there is is kept."""
    taken, was_stopped = _take(steps, words)
    if was_stopped and not taken:
        raise KeyboardInterrupt
    return taken


def take_some(steps: Iterator[AnyStep], words: Callable[[AnyStep], str]) -> list[AnyStep]:
    """Take all steps; Ctrl-C ends them as in `take_all`, even before the first."""
    return _take(steps, words)[0]


def _take(steps: Iterator[AnyStep], words: Callable[[AnyStep], str]) -> tuple[list[AnyStep], bool]:
    """Take steps until there are no more, or until Ctrl-C; say whether it was that."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    taken: list[AnyStep] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    console = Console(file=sys.stderr)
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
        _interrupts_wait() as interrupted,
    ):
        bar = progress.add_task("starting", total=None)
        try:
            for step in steps:
                taken.append(step)
                progress.update(bar, description=words(step), completed=step.index, total=step.last_index)
                if interrupted.is_set():
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            if taken:
                log.warning("stopped at step %d: keeping what is there", taken[-1].index)
            return taken, True
    return taken, False


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[threading.Event]:
    """Note a first Ctrl-C rather than break a step in two, after which nothing would be whole; a second one does."""
    noted = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if noted.is_set():
            raise KeyboardInterrupt
        noted.set()
        log.warning("stopping after this step; Ctrl-C once more stops at once")

    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not is_ours:  # another thread, or whoever runs us wants it otherwise
        yield noted
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Watched(Generic[AnyStep, Note]):
    """Steps of which little is kept, since each may hold what takes memory, and the last one whole."""

    def __init__(self, steps: Iterator[AnyStep], note: Callable[[AnyStep], Note]) -> None:
        self._steps, self._note = steps, note
        self._last: AnyStep | None = None
        self.has_ended = False
        """Whether there are no more steps, rather than that nobody asked for them."""

    @property
    def last(self) -> AnyStep:
        """The step that was taken last; InputError if there was none."""
        if self._last is None:
            raise InputError("there was nothing left to do; give more --steps or --minutes")
        return self._last

    def close(self) -> None:
        """Let the task put away what it works on."""
        if isinstance(self._steps, Generator):
            self._steps.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Note:
        try:
            step = self._last = next(self._steps)
        except StopIteration:
            self.has_ended = True
            raise
        return self._note(step)
