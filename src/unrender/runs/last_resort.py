"""Saving a result where its folder takes no more."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from unrender.errors import FileAccessError
from unrender.io.confinement import confinable_writes
from unrender.io.files import DiskFullError, atomic_write, read_bytes

log = logging.getLogger("unrender")


def save_in_need(
    save: Callable[[Path], None], path: Path, checkpoint: Path, failure: FileAccessError
) -> None:
    """Save a result that could not be saved, in the space of an older checkpoint or in the system's temporary folder.

    Raises the failure again, with where the result is, if it is not in `path`.
    """
    if isinstance(failure, DiskFullError) and checkpoint.is_file() and _save_instead(save, path, checkpoint):
        log.warning(
            "%s took the space of the checkpoint, which was older: the run cannot be resumed", path.name
        )
        return
    other = Path(tempfile.mkdtemp(prefix="unrender-")) / path.name
    try:
        with confinable_writes():
            save(other)
    except FileAccessError:
        other.parent.rmdir()
        raise failure from None
    raise type(failure)(f"{failure}. The result was saved as {other} instead") from failure


def _save_instead(save: Callable[[Path], None], path: Path, checkpoint: Path) -> bool:
    """Save a result after deleting a checkpoint; write that again if there is still no space."""
    content = read_bytes(checkpoint)
    checkpoint.unlink()
    try:
        save(path)
    except FileAccessError:
        with atomic_write(checkpoint) as file:
            file.write(content)
        return False
    return True
