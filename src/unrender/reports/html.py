"""Self-contained HTML reports: images embedded, no network requests."""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from unrender._version import __version__
from unrender.io.files import atomic_write


@dataclasses.dataclass(frozen=True)
class Figure:
    """One or more images of the same thing, with a caption. Several images make a turntable."""

    caption: str
    images: Sequence[bytes]
    """PNG files."""
    is_video: bool = False
    """Whether the images play one after another."""

    @property
    def sources(self) -> list[str]:
        """The images as data URLs."""
        return ["data:image/png;base64," + base64.b64encode(image).decode() for image in self.images]


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a report: a heading, then text, figures, a plot, a table and code, each optional."""

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    columns: int = 0
    """Figures in a row of a wide page; 0: as many as fit."""
    svg: str = ""
    table: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """A value by name, or several values in a list."""
    header: Sequence[str] = ()
    """Names of the columns of the table."""
    code: Sequence[str] = ()

    @property
    def rows(self) -> list[tuple[str, list[object]]]:
        """The rows of the table: a name and values."""
        return [(name, value if isinstance(value, list) else [value]) for name, value in self.table.items()]

    @property
    def has_numbers(self) -> bool:
        """Whether the table has values other than text."""
        return any(not isinstance(value, str) for _, values in self.rows for value in values)


def write_report(
    path: Path, title: str, sections: Sequence[Section], *, refresh_seconds: int | None = None
) -> None:
    """Write sections as one HTML file, which browsers reload every `refresh_seconds` if given."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("unrender.reports", "."), autoescape=True, trim_blocks=True
    )
    environment.filters["number"] = _number
    html = environment.get_template("report.html").render(
        title=title, sections=sections, version=__version__, refresh_seconds=refresh_seconds
    )
    with atomic_write(path) as file:
        file.write(html.encode(errors="backslashreplace"))  # names of files need not be Unicode


def _number(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
