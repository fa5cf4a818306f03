"""Reading of files, atomic writing, and errors that name the file."""

import contextlib
import errno
import math
import os
import re
import secrets
import shutil
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from unrender.errors import FileAccessError, FileFormatError
from unrender.io.confinement import check_readable, check_writable, record_read

FilePath = str | os.PathLike[str]


class DiskFullError(FileAccessError):
    """A disk, or the quota of a user, has no space for a file."""


class MissingFileError(FileAccessError, FileNotFoundError):
    """A file does not exist."""


def read_bytes(path: FilePath) -> bytes:
    """Read a file; raise an error if it is missing, empty, or not a regular file."""
    with open_file(path) as file:
        return file.read()


def is_file(path: FilePath) -> bool:
    """Return whether a path that data names is a file; a name longer than the file system takes is none."""
    check_readable(path)
    try:
        exists = Path(path).is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False
    if exists:
        record_read(Path(path))
    return exists


_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@contextlib.contextmanager
def open_file(path: FilePath) -> Iterator[BinaryIO]:
    """Open a file for reading; raise an error if it is missing, empty, or not a regular file."""
    source = Path(path)
    check_readable(source)
    record_read(source)
    try:
        if not source.exists():
            raise MissingFileError(f"{source}: no such file; check the path")
        if not source.is_file():
            raise FileAccessError(f"{source}: expected a file, but it is a {_kind(source)}")
        if not source.stat().st_size:
            raise FileFormatError(f"{source}: the file is empty")
        with source.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise FileFormatError(
                    f"{source}: a pointer of Git LFS, not the file itself; run `git lfs pull`"
                )
            file.seek(0)
            yield file
    except OSError as error:
        if isinstance(error, FileAccessError):
            raise
        raise FileAccessError(f"{source}: cannot be read: {_reason(error)}") from error


_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.part")
"""Names of files and folders that are being written."""


def remove_unfinished(folder: FilePath) -> None:
    """Delete what a killed process left unfinished in a folder and the folders within."""
    for left in sorted(Path(folder).rglob(".*.part")):
        if _UNFINISHED.fullmatch(left.name):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    left.unlink()


def check_space(
    path: FilePath, size: int, what: str = "cannot be written", *, largest: int | None = None
) -> None:
    """Raise DiskFullError if the disk of a path, or of the first of its folders that exists, has too little space.

    largest: size of the largest file, if there are several; a process can be limited in that. Quotas are not visible
    from here: they show when a file is written.
    """
    existing = next(folder for folder in (Path(path), *Path(path).absolute().parents) if folder.exists())
    free, limit = shutil.disk_usage(existing).free, _file_size_limit()
    if free < size:
        unit = 2**20 if size - free >= 2**20 and (free >= 2**20 or free == 0) else 2**10
        needed, missing = (f"{math.ceil(count / unit):,} {_UNITS[unit]}" for count in (size, size - free))
        raise DiskFullError(
            f"{path}: {what}: {needed} are needed and {free // unit:,} {_UNITS[unit]} are free: {missing} are missing; "
            "free some space, or choose another folder"
        )
    if limit < (largest or size):
        raise DiskFullError(
            f"{path}: {what}: a file of {math.ceil((largest or size) / 2**10):,} KiB is needed, and the limit of files "
            f"is {limit / 2**10:,.0f} KiB here; raise it with `ulimit -f unlimited`"
        )


_UNITS = {2**10: "KiB", 2**20: "MiB"}


def _file_size_limit() -> float:
    """Return the size that no file of this process may exceed; infinite on systems without such limits."""
    try:
        import resource
    except ImportError:
        return math.inf
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return math.inf if limit == resource.RLIM_INFINITY else limit


@contextlib.contextmanager
def atomic_write(path: FilePath, size: int = 0) -> Iterator[BinaryIO]:
    """Open a file for writing that is created atomically when the block ends, and not at all after an error.

    An existing file stays until then, so that the disk holds both for a moment. size: bytes that will be written, if
    they are known: DiskFullError if there is no space for them.
    """
    target = Path(os.path.realpath(path))
    _check_writable(target)
    check_space(target, size)
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        _sync_folder(target.parent)
    except FileAccessError:  # of another file
        raise
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write_folder(path: FilePath) -> Iterator[Path]:
    """Create a folder to write into that appears atomically when the block ends, and not at all after an error.

    An existing folder is replaced. Parent folders are created as needed.
    """
    target = Path(os.path.realpath(path))
    check_writable(target)
    if target.exists() and not target.is_dir():
        raise FileAccessError(f"{target}: cannot be written as a folder: it is a {_kind(target)}")
    part, old = (target.with_name(f".{secrets.token_hex(8)}.{end}") for end in ("part", "old"))
    try:
        part.mkdir(parents=True)
        yield part
        if target.exists():
            target.replace(old)
        part.replace(target)
        _sync_folder(target.parent)
    except FileAccessError:  # of a file within
        raise
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _not_written(path: FilePath, error: OSError) -> FileAccessError:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    kind = DiskFullError if is_full else FileAccessError
    return kind(f"{path}: cannot be written: {_reason(error)}")


def _check_writable(target: Path) -> None:
    check_writable(target)
    if target.exists() and not target.is_file():
        raise FileAccessError(f"{target}: cannot be written as a file: it is a {_kind(target)}")
    if not target.parent.is_dir():
        raise FileAccessError(f"{target}: cannot be written: create the folder {target.parent} first")
    if target.exists() and not os.access(target, os.W_OK):
        raise FileAccessError(f"{target}: write-protected; choose another name or change its permissions")


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, on systems where folders can be opened."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _kind(path: Path) -> str:
    return "folder" if path.is_dir() else "file" if path.is_file() else "device or pipe"


def _reason(error: Exception) -> str:
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.ENOSPC:
        return "the disk is full; free some space or choose another folder"
    if code == errno.EDQUOT:
        return "your disk quota is used up; free some space or choose another folder"
    if code == errno.EFBIG:
        return "it is larger than files may be here; raise the limit (ulimit -f), or choose another disk"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "permission denied; choose another folder or change its permissions"
    return getattr(error, "strerror", None) or str(error)


_PARSER_ERRORS = (
    ArithmeticError,  # division by zero, overflow
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,  # KeyError, IndexError
    MemoryError,
    NameError,  # a variable a parser never set
    OSError,  # the bytes are in memory already: only a parser can raise it here
    RuntimeError,  # also RecursionError, NotImplementedError
    SyntaxError,  # array headers are Python literals
    TypeError,
    ValueError,  # also UnicodeDecodeError, JSONDecodeError, pydantic's ValidationError
    Warning,  # only where the caller's filter makes errors of them
    struct.error,
    tokenize.TokenError,  # numpy on array headers
    zipfile.BadZipFile,
    zlib.error,
)


@contextlib.contextmanager
def reading(path: FilePath) -> Iterator[None]:
    """Convert the exceptions of parsers to `FileFormatError`, and add the path to the message.

    This is the only place where exceptions of other libraries are converted. Parsers work on bytes, not on paths. Ours
    raise a `FileFormatError` with a line or byte number; those of other libraries raise any of the exceptions listed
    above on damaged files. Their warnings are not suppressed, as that would affect other threads.
    """
    try:
        with np.errstate(all="ignore"):
            yield
    except FileAccessError:  # of another file, which it names
        raise
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error.__cause__
    except MemoryError as error:
        raise FileFormatError(f"{path}: requires more memory than is available") from error
    except _PARSER_ERRORS as error:
        raise FileFormatError(
            f"{path}: damaged, or its content does not match its suffix ({_first_line(error)})"
        ) from error


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
