"""Paths and open handles: what PyTorch3D's loaders and writers take."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from unrender.errors import FileFormatError
from unrender.io.files import FilePath, atomic_write, read_bytes, reading

Source = FilePath | IO[Any]


def is_path(f: Source) -> bool:
    """Return whether a source is a path, not an open handle."""
    return isinstance(f, str | os.PathLike)


def read_source(f: Source) -> bytes:
    """Read a file, or the rest of an open handle, in text or binary mode."""
    if isinstance(f, str | os.PathLike):
        return read_bytes(f)
    content = f.read()
    return content.encode() if isinstance(content, str) else bytes(content)


def folder_of(f: Source) -> Path:
    """Return the folder that relative names in the file start from; for a handle, the current one."""
    return Path(f).parent if isinstance(f, str | os.PathLike) else Path()


@contextlib.contextmanager
def reading_source(f: Source) -> Iterator[None]:
    """Add the path to errors about a file."""
    if isinstance(f, str | os.PathLike):
        with reading(f):
            yield
    else:
        yield


@contextlib.contextmanager
def writing(f: Source) -> Iterator[Any]:
    """Open a path for atomic writing of bytes; a handle is written as it is, in text or binary mode."""
    if isinstance(f, str | os.PathLike):
        with atomic_write(f) as file:
            yield file
    elif "b" in getattr(f, "mode", "b") and not hasattr(f, "encoding"):
        yield f
    else:
        yield _Encoded(f)


class _Encoded:
    """A text handle that takes bytes."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, data: bytes | str) -> int:
        """Write bytes as UTF-8 text."""
        if isinstance(data, str):
            return self._file.write(data)
        try:
            return self._file.write(data.decode())
        except UnicodeDecodeError as error:
            raise FileFormatError(
                "binary data cannot be written to a handle that was opened for text"
            ) from error
