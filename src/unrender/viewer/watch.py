"""Training and fitting, watched in the viewer."""

from collections.abc import Generator, Iterator, Mapping
from typing import Protocol, TypeVar

from unrender.runs.progress import Step
from unrender.viewer.window import Viewable, Window


class ResultStep(Step, Protocol):
    """A step of a task with losses and a result that can be shown."""

    @property
    def losses(self) -> Mapping[str, float]:
        """Losses by name."""

    @property
    def result(self) -> Viewable:
        """The current mesh, point cloud or field."""


AnyStep = TypeVar("AnyStep", bound=ResultStep)


def watch(steps: Iterator[AnyStep], window: Window) -> Iterator[AnyStep]:
    """Pass on the steps of a task and show their results in a window, where the task can be paused.

    Rendering happens between steps and takes at most a quarter of the time, half of it while a camera moves, and none
    while no page is open.
    """
    try:
        for step in steps:
            losses = "  ".join(f"{name} {value:.4g}" for name, value in step.losses.items())
            window.update(step.result, f"step {step.index} of {step.last_index}  {losses}")
            yield step
    finally:
        if isinstance(steps, Generator):  # a task that is stopped early saves its state
            steps.close()
