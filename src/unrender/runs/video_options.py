"""What all films have in common."""

import dataclasses
from pathlib import Path
from typing import Literal

from unrender.errors import InputError

Color = tuple[float, float, float]
LARGEST = 8192
"""Pixels of a picture's longer side."""


@dataclasses.dataclass(frozen=True)
class Film:
    """What to write."""

    views: int | None = None
    """How many pictures. By default 36, or all that --path has."""
    size: int | None = None
    """Pixels along the longer side. By default 512 for a volume, and as the photos for a run, with --quick 400."""
    background: Color | None = None
    """What is behind, RGB in 0 to 1. By default black for a volume, and as learned for a run."""
    video: Literal["mp4", "gif", "none"] = "mp4"
    """Kind of film."""
    output: Path | None = None
    """Folder for the results. By default runs/render/NAME-TIME."""

    def check(self) -> None:
        """Refuse what cannot be drawn, before anything is read."""
        if self.views is not None and self.views < 1:
            raise InputError(f"--views {self.views}: should be at least 1")
        if self.size is not None and not 1 <= self.size <= LARGEST:
            raise InputError(f"--size {self.size}: should be 1 to {LARGEST} pixels")
        if self.background is not None and not all(0 <= channel <= 1 for channel in self.background):
            raise InputError(f"--background {self.background}: three numbers in 0 to 1")
