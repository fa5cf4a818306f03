"""Trainings, watched as they run."""

from collections.abc import Generator, Iterator, Mapping
from typing import Protocol, TypeVar

from unrender.viewer.window import Thing, Window


class Step(Protocol):
    """What tasks that learn a shape or a field yield."""

    @property
    def index(self) -> int:
        """Steps before this one."""

    @property
    def last_index(self) -> int:
        """No step comes after that one."""

    @property
    def losses(self) -> Mapping[str, float]:
        """By name."""

    @property
    def result(self) -> Thing:
        """What was learned up to here."""


AnyStep = TypeVar("AnyStep", bound=Step)


def watch(steps: Iterator[AnyStep], window: Window) -> Iterator[AnyStep]:
    """Pass on the steps of a task, and show their results to those who look; the page can pause them.

    Between two steps the window draws: for a quarter of the time, longer while somebody moves, and not at all while
    nobody looks.
    """
    try:
        for step in steps:
            losses = "  ".join(f"{name} {value:.4g}" for name, value in step.losses.items())
            window.keep_up(step.result, f"step {step.index} of {step.last_index}  {losses}")
            yield step
    finally:
        if isinstance(steps, Generator):  # a task that is left early saves what it has
            steps.close()
