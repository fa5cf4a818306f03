"""Parsing of numbers in lines of text, with errors that name the line."""

import codecs
import io
import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from unrender.errors import FileFormatError

Numbers = NDArray[np.float64]
MAX_LINES_CHECKED = 100


def plain_text(data: bytes) -> bytes:
    """Normalize line endings to line feeds, and remove a byte-order mark; convert UTF-16, as of Excel, to UTF-8."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16").encode(errors="replace")
    data = data.removeprefix(b"\xef\xbb\xbf")
    return re.sub(rb"\r\n?", b"\n", data) if b"\r" in data else data


def split_lines(data: bytes) -> list[str]:
    """Split text into lines; the encoding does not matter, as only comments and names can be non-ASCII."""
    return plain_text(data).decode("latin-1").split("\n")


def parse_table(
    text: bytes, first: int = 1, delimiter: str | None = None, columns: Sequence[int] | None = None
) -> Numbers:
    """Parse lines with the same number of columns, or some columns; the first is line `first` of its file."""
    try:
        stream = io.BytesIO(text)
        quote = '"' if b'"' in text else None
        table: Numbers = np.loadtxt(
            stream,
            encoding="latin-1",
            comments=None,
            ndmin=2,
            delimiter=delimiter,
            quotechar=quote,
            usecols=columns,
        )
    except ValueError as error:
        numbered = enumerate((line.decode("latin-1") for line in io.BytesIO(text)), first)
        raise _parse_error(numbered, delimiter, columns, same_width=True) from error
    return table


def parse_rows(lines: list[str], numbers: Sequence[int]) -> Numbers:
    """Parse lines with the same number of columns; `numbers` are their line numbers, for messages."""
    try:
        table: Numbers = np.loadtxt(lines, comments=None, ndmin=2) if lines else np.empty((0, 0))
    except ValueError as error:
        raise _parse_error(zip(numbers, lines, strict=True), same_width=True) from error
    return table


def parse_ragged(lines: list[str], numbers: Sequence[int]) -> tuple[Numbers, NDArray[np.int64]]:
    """Parse lines with varying numbers of columns; return all numbers, and the count per line."""
    widths = np.array([len(line.split()) for line in lines], dtype=np.int64)
    try:
        flat: Numbers = np.loadtxt([" ".join(lines)], comments=None, ndmin=1) if widths.any() else np.empty(0)
    except ValueError as error:
        raise _parse_error(zip(numbers, lines, strict=True), same_width=False) from error
    return flat, widths


def _parse_error(
    numbered: Iterable[tuple[int, str]],
    delimiter: str | None = None,
    used: Sequence[int] | None = None,
    *,
    same_width: bool,
) -> FileFormatError:
    """Find the line that cannot be parsed; `used` are the columns that should hold numbers, by default all."""
    columns = 0
    for number, line in numbered:
        words = [word.strip(' "') for word in line.strip().split(delimiter)] if line.strip() else []
        numeric = words if used is None else [words[i] for i in used if i < len(words)]
        bad = next((word for word in numeric if not is_number(word)), None)
        if bad == "":
            return FileFormatError(f"line {number}: a value is missing")
        if bad is not None:
            comma = "; write numbers with decimal points" if has_decimal_comma(bad) else ""
            return FileFormatError(f"line {number}: {bad[:40]!r} is not a number{comma}")
        if same_width and columns and words and len(words) != columns:
            return FileFormatError(
                f"line {number}: the number of columns changes from {columns} to {len(words)}"
            )
        columns = columns or len(words)
    return FileFormatError("a number cannot be parsed")


def has_decimal_comma(word: str) -> bool:
    """Return whether a word is a number with a decimal comma."""
    return re.fullmatch(r"[-+]?\d*,\d+(e[-+]?\d+)?", word, re.IGNORECASE) is not None


def with_decimal_points(text: bytes) -> tuple[bytes, bool]:
    """Replace decimal commas in a table whose columns are separated by blanks or semicolons; return whether there are.

    The second filled line decides, as the first may hold names: each of its words is a number with at most one comma,
    and at least one has a comma.
    """
    if b"," not in text:
        return text, False
    filled = [line for line, _ in zip(re.finditer(rb"[^\n]*\S[^\n]*", text), range(2), strict=False)]
    words = re.split(r"[\s;]+", filled[-1][0].decode("latin-1").strip(" \t;")) if filled else []
    commas = [has_decimal_comma(word) for word in words]
    if len(words) < 3 or not any(commas):
        return text, False
    if not all(comma or is_number(word) for word, comma in zip(words, commas, strict=True)):
        return text, False
    return text.replace(b",", b"."), True


def refuse_split_numbers(text: bytes) -> None:
    """Raise FileFormatError for numbers with decimal commas between commas: `-0,75,0,294,-0,012` is three, not six.

    Then, all words are whole numbers, every second one has no sign, and some have zeros in front, or are -0.
    """
    words: list[str] = []
    for line in text.decode("latin-1").splitlines()[:MAX_LINES_CHECKED]:
        row = [word.strip() for word in line.split(",")] if line.strip() else []
        if len(row) % 2 or not all(re.fullmatch(r"[-+]?\d+", word) for word in row):
            return
        if not all(word.isdecimal() for word in row[1::2]):
            return
        words += row
    if len(words) and any(re.fullmatch(r"-0|0\d+", word) for word in words):
        raise FileFormatError(
            "decimal commas cannot be told from the commas between columns; write numbers with decimal points, or put "
            "semicolons between columns"
        )


def without_trailing_separators(text: bytes) -> bytes:
    """Remove a comma or semicolon from the end of each line, if the second filled line has one."""
    filled = [line for line, _ in zip(re.finditer(rb"[^\n]*\S[^\n]*", text), range(2), strict=False)]
    if not filled or filled[-1][0].rstrip()[-1:] not in (b",", b";"):
        return text
    return re.sub(rb"[,;][ \t]*$", b"", text, flags=re.MULTILINE)


def is_number(word: str) -> bool:
    """Return whether a word is a number, including nan and inf."""
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word
