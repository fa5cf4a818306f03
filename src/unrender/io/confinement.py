"""Confinement of a process to folders: what data names can neither be written nor, on request, read elsewhere.

Both hold for all threads, which libraries may start: reading and writing in this package passes through
`unrender.io.files`, where they are checked.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from unrender.errors import FileAccessError

AnyPath = str | os.PathLike[str]


class _Folder(NamedTuple):
    """A folder, or a file, as it was named, and without symbolic links."""

    named: Path
    real: Path


_writable: list[list[Path]] = []
"""What may be written to, for each block that is running; nothing named: everything."""
_readable: list[list[_Folder]] = []
_recorded: list[set[Path]] = []


@contextlib.contextmanager
def confinable_writes() -> Iterator[None]:
    """Run a block, such as a command, in which `confine_writes` has an effect; it ends with the block."""
    _writable.append([])
    try:
        yield
    finally:
        _writable.pop()


def confine_writes(path: AnyPath) -> None:
    """Refuse writes outside a folder, or beside a file, for the rest of a `confinable_writes` block.

    No name in data leads out of it. What is written may be read, also where `confined_reads` is in effect.
    """
    if _writable:
        _writable[-1].append(Path(os.path.realpath(path)))
    if _readable:
        _readable[-1].append(_folder(path))


def check_writable(target: Path) -> None:
    """Raise FileAccessError for a path, without symbolic links, that may not be written to."""
    folders = _writable[-1] if _writable else []
    if folders and not any(target.is_relative_to(folder) for folder in folders):
        raise FileAccessError(f"{target}: not written, as it is outside the output folder {folders[-1]}")


@contextlib.contextmanager
def confined_reads(*folders: AnyPath) -> Iterator[None]:
    """Refuse, in a block, to read files outside of some folders, such as those that a scene, MTL or glTF file names.

    Symbolic links are followed: what counts is where a file is. Use it for files from others:
    `with unrender.confined_reads("scene"): scene = unrender.load_scene("scene")`. It holds for the whole process, and
    for reading by this package only. Raises FileAccessError when such a file is looked for, whether or not it exists.
    """
    _readable.append([_folder(folder) for folder in folders])
    try:
        yield
    finally:
        _readable.pop()


def check_readable(path: AnyPath) -> None:
    """Raise FileAccessError for a path that may not be read, before the file system is asked about it."""
    if not _readable:
        return
    named = Path(os.path.abspath(path))
    if not any(named.is_relative_to(root) for folder in _readable[-1] for root in folder):
        raise _outside(path)
    try:
        real = Path(os.path.realpath(named))
    except ValueError as error:  # a null character
        raise _outside(path) from error
    if not any(real.is_relative_to(folder.real) for folder in _readable[-1]):
        raise _outside(path)


def _outside(path: AnyPath) -> FileAccessError:
    folders = ", ".join(str(folder.named) for folder in _readable[-1][:3])
    return FileAccessError(
        f"{path}: not read, as it is outside of {folders}; copy it there, or allow other folders"
    )


@contextlib.contextmanager
def recorded_reads() -> Iterator[set[Path]]:
    """Collect the paths of the files that are read in a block."""
    paths: set[Path] = set()
    _recorded.append(paths)
    try:
        yield paths
    finally:
        _recorded.remove(paths)


def record_read(path: Path) -> None:
    """Note that a file is read."""
    for paths in _recorded:
        paths.add(path)


def outside(paths: Sequence[Path], folder: AnyPath) -> list[Path]:
    """Return the paths that are not in a folder, symbolic links followed."""
    root = os.path.realpath(folder)
    return [path for path in paths if not Path(os.path.realpath(path)).is_relative_to(root)]


def _folder(path: AnyPath) -> _Folder:
    return _Folder(Path(os.path.abspath(path)), Path(os.path.realpath(path)))
