"""Training in the browser, for `--viewer`."""

import logging
from collections.abc import Iterator, Sequence

from torch import Tensor

from unrender.data.frames import Frame
from unrender.io.confinement import confine_writes
from unrender.viewer.watch import AnyStep, watch
from unrender.viewer.window import PATH_FILE, Window

log = logging.getLogger("unrender")


def watched_in_browser(
    steps: Iterator[AnyStep], frames: Sequence[Frame] = (), background: Tensor | None = None
) -> Iterator[AnyStep]:
    """Pass on the steps of a task and show their results in the browser until it ends."""
    confine_writes(PATH_FILE)  # may be written besides the folder of the run
    with Window(path_file=PATH_FILE) as window:
        if background is not None:
            red, green, blue = background.tolist()
            window.background = red, green, blue
        if frames:
            window.show_cameras(frames, visible=False)
        log.info("viewer running at %s", window.url)
        yield from watch(steps, window)
