"""The report of the tour: one HTML file with everything in it."""

import base64
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from unrender._version import __version__
from unrender.io.files import write_whole

WIDTH, HEIGHT = 320.0, 96.0
"""Of the drawing of a curve, in its own units."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """A picture; or frames of one width side by side in one picture."""

    alt: str
    """What is to be seen, in words."""
    file: bytes
    """WebP."""
    size: tuple[int, int]
    """Pixels of a frame: width, height."""
    num_frames: int = 1

    @property
    def source(self) -> str:
        """The picture as a data address."""
        return "data:image/webp;base64," + base64.b64encode(self.file).decode()


@dataclasses.dataclass(frozen=True)
class Slider:
    """Two pictures of one size, one over the other, with a border between them that can be moved."""

    caption: str
    left_name: str
    left: Shown
    right_name: str
    right: Shown


@dataclasses.dataclass(frozen=True)
class Frames:
    """Frames that one goes through; one alone is a picture."""

    caption: str
    shown: Shown


@dataclasses.dataclass(frozen=True)
class Curve:
    """Values over the steps of a job."""

    title: str
    unit: str
    steps: Sequence[float]
    values: Sequence[float]
    logarithmic: bool = False

    @property
    def path(self) -> str:
        """The curve for SVG, in a drawing of `WIDTH` times `HEIGHT`."""
        heights = [math.log(value) if self.logarithmic else value for value in self.values]
        across, up = (min(self.steps), max(self.steps)), (min(heights), max(heights))
        places = (
            (WIDTH * _share(step, across), HEIGHT * (1 - _share(height, up)))
            for step, height in zip(self.steps, heights, strict=True)
        )
        return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _share(value: float, span: tuple[float, float]) -> float:
    low, high = span
    return (value - low) / (high - low) if high > low else 0.5


@dataclasses.dataclass(frozen=True)
class Words:
    """What is said of a job."""

    name: str
    """Of the section, in addresses."""
    title: str
    text: str
    python: str
    """The lines that do it."""


@dataclasses.dataclass(frozen=True)
class Ran:
    """A command that was run."""

    line: str
    """How to call it in the tour's folder."""
    seconds: float


@dataclasses.dataclass(frozen=True)
class Job:
    """One job of the tour: what it was given, what came out, and how to do it."""

    words: Words
    given: str
    outcome: str
    """The figure that counts, for the table at the top."""
    pictures: Sequence[Slider | Frames]
    curve: Curve | None
    figures: Sequence[tuple[str, str]]
    """What is measured against the known truth, and the rest worth knowing."""
    ran: Sequence[Ran]
    folders: Sequence[str]
    """In the tour's, where the commands left their results and reports."""

    @property
    def seconds(self) -> float:
        """Of the commands: to learn, and to make all the pictures and reports that they write."""
        return sum(each.seconds for each in self.ran)


@dataclasses.dataclass(frozen=True)
class Tour:
    """All jobs, and the machine that did them."""

    jobs: Sequence[Job]
    photo: Shown
    seconds: float
    machine: str


def write_tour(tour: Tour, path: Path) -> None:
    """Write the report as one HTML file that asks the network for nothing."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("unrender.tour", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.tests["slider"] = lambda picture: isinstance(picture, Slider)
    template = environment.get_template("tour.html")
    html = template.render(tour=tour, version=__version__, width=WIDTH, height=HEIGHT)
    with write_whole(path) as file:
        file.write(html.encode())
