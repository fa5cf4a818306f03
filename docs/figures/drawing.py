"""Lines, arrows, dots and words, written as SVG that takes its color from the page it stands in."""

import html
import math
from collections.abc import Sequence
from pathlib import Path

Point = Sequence[float]
INK = "currentColor"
RED, GREEN, BLUE, ORANGE = "#d9483b", "#2f9e5f", "#3f7fd9", "#d98a1f"
"""Readable before white and before black. Axes x, y, z are red, green, blue."""
HEAD = 8.0
"""Length of an arrow's head."""


class Drawing:
    """One drawing: x to the right, y down, units of CSS pixels where it is shown at its full width."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._parts: list[str] = []

    def line(
        self,
        *points: Point,
        color: str = INK,
        width: float = 1.5,
        dashes: str = "",
        closed: bool = False,
        fill: str = "none",
        opacity: float = 1.0,
    ) -> None:
        """Draw straight lines from point to point."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        extra = f' stroke-dasharray="{dashes}"' if dashes else ""
        extra += f' opacity="{opacity:g}"' if opacity < 1 else ""
        self._parts.append(
            f'<{"polygon" if closed else "polyline"} points="{places}" fill="{fill}" stroke="{color}" '
            f'stroke-width="{width:g}" stroke-linejoin="round"{extra}/>'
        )

    def area(self, *points: Point, color: str = INK, opacity: float = 0.15) -> None:
        """Fill a polygon, without an edge."""
        self.line(*points, color="none", fill=color, closed=True, opacity=opacity)

    def arrow(self, start: Point, end: Point, color: str = INK, width: float = 2.0) -> None:
        """Draw a line with a head at its end."""
        length = math.dist(start, end)
        ahead = ((end[0] - start[0]) / length, (end[1] - start[1]) / length)
        neck = (end[0] - HEAD * ahead[0], end[1] - HEAD * ahead[1])
        side = (-0.45 * HEAD * ahead[1], 0.45 * HEAD * ahead[0])
        self.line(start, neck, color=color, width=width)
        wings = [(neck[0] + s * side[0], neck[1] + s * side[1]) for s in (1, -1)]
        self.area(end, *wings, color=color, opacity=1)

    def dot(self, at: Point, color: str = INK, radius: float = 3.5) -> None:
        """Draw a filled circle."""
        self._parts.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:g}" fill="{color}"/>')

    def word(self, at: Point, text: str, color: str = INK, *, anchor: str = "middle", size: int = 13) -> None:
        """Write a line of text with its baseline at a place."""
        self._parts.append(
            f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" fill="{color}" font-size="{size}" text-anchor="{anchor}">'
            f"{html.escape(text)}</text>"
        )

    def write(self, folder: Path, name: str) -> None:
        """Write it as one element without blank lines, so that a page can hold it as it is."""
        size = f'viewBox="0 0 {self.width} {self.height}" style="width:100%;max-width:{self.width}px"'
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" role="img" '
            f'aria-label="{html.escape(self.title)}">'
        )
        (folder / name).write_text("\n".join([head, *self._parts, "</svg>\n"]), encoding="utf-8")
