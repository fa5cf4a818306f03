"""Commands under torchrun: which can share their work, and who speaks."""

import contextlib
import logging
import os
from collections.abc import Iterator

from unrender.errors import InputError

DISTRIBUTED = (
    *("fit-mesh", "find-pose", "fit-volume", "fit-nerf"),
    *("render", "eval", "depth", "export", "doctor"),
)
"""Commands that several workers can run together."""


@contextlib.contextmanager
def as_worker(command: str) -> Iterator[None]:
    """Run a block as one of the workers that torchrun started, if it did; only the first one prints.

    Raises InputError if the command does not share its work.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":  # torch need not be imported to say so
        yield
        return
    from unrender.workers import joined_workers

    if command not in DISTRIBUTED:
        raise InputError(
            f"`unrender {command}` runs in one process, but torchrun started {os.environ['WORLD_SIZE']}; the commands "
            f"that share their work are {', '.join(DISTRIBUTED)}"
        )
    with joined_workers() as workers, contextlib.ExitStack() as silence:
        if not workers.is_first:
            logging.getLogger("unrender").setLevel(logging.ERROR)
            nowhere = silence.enter_context(open(os.devnull, "w", encoding="utf-8"))
            silence.enter_context(contextlib.redirect_stdout(nowhere))
        yield
