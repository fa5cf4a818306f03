"""Numbers in lines of text."""

import re

import numpy as np
from numpy.typing import NDArray

from unrender.errors import FileFormatError


def split_lines(data: bytes) -> list[str]:
    """Decode text in any encoding (only comments can be other than ASCII) and split it into lines."""
    text = data.decode("latin-1")
    return (re.sub("\r\n?", "\n", text) if "\r" in text else text).split("\n")


def parse_rows(lines: list[str], numbers: list[int] | range) -> NDArray[np.float64]:
    """Parse lines of equally many numbers; `numbers` are the lines' places in the file, for the message."""
    if not lines:
        return np.empty((0, 0))
    try:
        return np.loadtxt(lines, comments=None, ndmin=2)
    except ValueError as error:
        raise _blame_line(lines, numbers) from error


def _blame_line(lines: list[str], numbers: list[int] | range) -> FileFormatError:
    columns = len(lines[0].split())
    for number, line in zip(numbers, lines, strict=True):
        words = line.split()
        if len(words) != columns and words:
            return FileFormatError(
                f"line {number}: {len(words)} columns, where the lines before have {columns}"
            )
        for word in words:
            if not _is_number(word):
                return FileFormatError(f"line {number}: {word[:40]!r} is not a number")
    return FileFormatError(f"line {numbers[0]}: the numbers that start here cannot be read")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
