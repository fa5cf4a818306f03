"""Long work under a progress bar."""

import logging
import sys
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

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


def take_all(steps: Iterator[AnyStep], words: Callable[[AnyStep], str]) -> list[AnyStep]:
    """Take all steps; Ctrl-C ends them early, and what there is is kept."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    taken: list[AnyStep] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as progress:
        bar = progress.add_task("starting", total=None)
        try:
            for step in steps:
                taken.append(step)
                progress.update(bar, description=words(step), completed=step.index, total=step.last_index)
        except KeyboardInterrupt:
            if not taken:
                raise
            log.warning("stopped at step %d: keeping what is there", taken[-1].index)
    return taken
