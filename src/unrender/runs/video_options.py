"""Options of rendered images and videos."""

import dataclasses
from pathlib import Path
from typing import Literal

from unrender.errors import InputError
from unrender.runs.options import check_size, check_views

Color = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class VideoOptions:
    """Images and video."""

    views: int | None = None
    """Number of frames to render. Default: 36; all views for --path test and camera files."""
    size: int | None = None
    """Longer side of the images in pixels, up to 8192.
    Default: 512 for volumes; for runs the size of the training images, at most 400 with --quick."""
    background: Color | None = None
    """Background color, RGB in [0, 1]. Default: black for volumes, that of the training for runs."""
    video: Literal["mp4", "gif", "none"] = "mp4"
    """Format of the video; none writes images only."""
    output: Path | None = None
    """Output folder. Default: runs/render/NAME-TIME."""

    def check(self) -> None:
        """Raise InputError for values out of range."""
        check_views(self.views)
        check_size(self.size)
        if self.background is not None and not all(0 <= channel <= 1 for channel in self.background):
            raise InputError(f"--background {self.background}: must be three numbers in [0, 1]")
