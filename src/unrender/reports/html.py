"""Self-contained HTML reports: pictures inside, no request to the network."""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from unrender._version import __version__
from unrender.io.files import write_whole


@dataclasses.dataclass(frozen=True)
class Picture:
    """One or more images of the same thing, with a caption; several make a turntable."""

    caption: str
    frames: Sequence[bytes]
    """PNG files."""
    plays: bool = False
    """Whether the frames are a film, rather than views once around."""

    @property
    def sources(self) -> list[str]:
        """The frames as data addresses."""
        return ["data:image/png;base64," + base64.b64encode(frame).decode() for frame in self.frames]


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report: words, pictures side by side, a drawing, figures."""

    title: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    svg: str = ""
    figures: Mapping[str, object] = dataclasses.field(default_factory=dict)
    code: Sequence[str] = ()


def write_report(
    path: Path, title: str, sections: Sequence[Section], *, renew_seconds: int | None = None
) -> None:
    """Write sections as one HTML file; browsers load it again every so many seconds, if it will change."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("unrender.reports", "."), autoescape=True, trim_blocks=True
    )
    environment.filters["number"] = _number
    html = environment.get_template("report.html").render(
        title=title, sections=sections, version=__version__, renew_seconds=renew_seconds
    )
    with write_whole(path) as file:
        file.write(html.encode())


def _number(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
