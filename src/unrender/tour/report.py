"""The report of the tour: one HTML file with everything in it."""

import base64
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from unrender._version import __version__
from unrender.io.files import atomic_write

WIDTH, HEIGHT = 320.0, 96.0
"""Of the plot of a curve, in SVG units."""


@dataclasses.dataclass(frozen=True)
class EncodedImage:
    """An image, or frames of equal size side by side in one image."""

    alt: str
    """Alternative text."""
    file: bytes
    """WebP."""
    size: tuple[int, int]
    """Width and height of a frame in pixels."""
    num_frames: int = 1

    @property
    def source(self) -> str:
        """The image as a data URL."""
        return "data:image/webp;base64," + base64.b64encode(self.file).decode()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two images of the same size, one over the other, with a movable divider."""

    caption: str
    left_name: str
    left: EncodedImage
    right_name: str
    right: EncodedImage


@dataclasses.dataclass(frozen=True)
class Turntable:
    """Frames with a slider; a single frame is an image."""

    caption: str
    image: EncodedImage


@dataclasses.dataclass(frozen=True)
class Curve:
    """Values over the steps of a task."""

    title: str
    unit: str
    steps: Sequence[float]
    values: Sequence[float]
    logarithmic: bool = False

    @property
    def path(self) -> str:
        """The curve as an SVG path in a plot of `WIDTH` × `HEIGHT`."""
        heights = [math.log(value) if self.logarithmic else value for value in self.values]
        across, up = (min(self.steps), max(self.steps)), (min(heights), max(heights))
        points = (
            (WIDTH * _fraction(step, across), HEIGHT * (1 - _fraction(height, up)))
            for step, height in zip(self.steps, heights, strict=True)
        )
        return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _fraction(value: float, bounds: tuple[float, float]) -> float:
    low, high = bounds
    return (value - low) / (high - low) if high > low else 0.5


@dataclasses.dataclass(frozen=True)
class Description:
    """Title, text and code of a task."""

    name: str
    """Anchor of the section."""
    title: str
    text: str
    python: str
    """The Python code of the task."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that was run."""

    line: str
    """The command line, in the folder of the tour."""
    seconds: float


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """One task of the tour: input, result, and code."""

    description: Description
    input: str
    outcome: str
    """The main metric, for the table at the top."""
    figures: Sequence[Comparison | Turntable]
    curve: Curve | None
    metrics: Sequence[tuple[str, str]]
    """Errors against the ground truth, and other numbers, as text."""
    commands: Sequence[Command]
    folders: Sequence[str]
    """Output folders of the commands, within that of the tour."""

    @property
    def seconds(self) -> float:
        """Time of the commands, including the images and reports that they write."""
        return sum(command.seconds for command in self.commands)


@dataclasses.dataclass(frozen=True)
class Tour:
    """All tasks, and the machine that ran them."""

    tasks: Sequence[TaskResult]
    photo: EncodedImage
    seconds: float
    machine: str


def write_tour(tour: Tour, path: Path) -> None:
    """Write the report as one HTML file without network requests."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("unrender.tour", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.tests["comparison"] = lambda figure: isinstance(figure, Comparison)
    template = environment.get_template("tour.html")
    html = template.render(tour=tour, version=__version__, width=WIDTH, height=HEIGHT)
    with atomic_write(path) as file:
        file.write(html.encode())
