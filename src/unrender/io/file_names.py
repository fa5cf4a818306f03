"""File names made of names in data, such as those of the images of a scene."""

import re
import unicodedata
from collections.abc import Sequence

MAX_BYTES = 200
"""Longest name in UTF-8. File systems take 255 bytes; the rest is left to the suffixes that writers append."""
UNNAMED = "unnamed"
_MAX_SUFFIX = 16
_PORTABLE = frozenset("LNM")
"""Unicode categories that every file system takes: letters, numbers, and the marks that belong to them."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$)", re.IGNORECASE)
"""Devices on Windows, whatever the suffix."""


def safe_file_names(names: Sequence[str]) -> list[str]:
    """Return a file name for each name in data, so that no name leads out of the folder that the files are written to.

    Results are single path components: letters, digits, `-`, `_` and `.`, no leading dot or dash, at most `MAX_BYTES`
    long, no device of Windows, never empty; and unique, also where file names ignore case. They are the last components
    of the names or, if several are the same, the whole paths joined by `_`, else numbered.
    """
    parts = [[part for part in re.split(r"[/\\]", name) if part.strip(". ")] for name in names]
    short = [_portable(path[-1] if path else "") for path in parts]
    if _are_unique(short):
        return short
    long = [_portable("_".join(path)) for path in parts]
    return long if _are_unique(long) else [_portable(f"{i:04d}_{name}") for i, name in enumerate(short)]


def without_suffix(name: str) -> str:
    """Remove the suffix of the last component of a path with either kind of separator."""
    return re.sub(r"(?<=[^/\\])\.[^./\\]*$", "", name)


def _portable(name: str) -> str:
    characters = unicodedata.normalize("NFKC", name)
    safe = "".join(c if unicodedata.category(c)[0] in _PORTABLE or c in "-_." else "_" for c in characters)
    safe = safe.lstrip(".-").rstrip(".")
    if _RESERVED.fullmatch(safe.partition(".")[0]):
        safe = f"_{safe}"
    return _shorten(safe).rstrip(".") or UNNAMED


def _shorten(name: str) -> str:
    """Cut a name to `MAX_BYTES` before its suffix, not within a character."""
    data = name.encode()
    if len(data) <= MAX_BYTES:
        return name
    suffix = re.search(rf"\.[^.]{{1,{_MAX_SUFFIX}}}$", name)
    end = suffix[0] if suffix else ""
    return data[: MAX_BYTES - len(end.encode())].decode(errors="ignore") + end


def _are_unique(names: Sequence[str]) -> bool:
    return len({unicodedata.normalize("NFKC", name).casefold() for name in names}) == len(names)
