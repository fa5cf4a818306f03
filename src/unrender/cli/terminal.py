"""Standard streams that never end a command: closed ones, pipes without a reader, and terminals without Unicode."""

import codecs
import io
import os
import sys
from typing import Any, TextIO

ENCODING_ERRORS = "unrender.spell-out"
SPELLED_OUT = {
    "×": "x",
    "·": "*",
    "−": "-",
    "–": "-",
    "→": "->",
    "…": "...",
    "²": "^2",
    "³": "^3",
    "≥": ">=",
    "≤": "<=",
    "≈": "~",
    "“": '"',
    "”": '"',
    "’": "'",
    "█": "#",
}
"""Characters of our messages, for terminals that cannot show them; others become escape sequences."""


def prepare_streams() -> None:
    """Make standard streams of the process tolerant: what cannot be written is dropped, as results are in files."""
    codecs.register_error(ENCODING_ERRORS, _spell_out)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would take its number, and get our messages
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    sys.stdout = _tolerant(sys.stdout, 1)
    sys.stderr = _tolerant(sys.stderr, 2)


def _tolerant(stream: TextIO | None, number: int) -> TextIO:
    if stream is not None and (os.name == "nt" or not isinstance(stream, io.TextIOWrapper)):
        if isinstance(stream, io.TextIOWrapper):  # of a console, which is no file there
            stream.reconfigure(errors=ENCODING_ERRORS)
        return stream
    encoding, in_lines = ("utf-8", True) if stream is None else (stream.encoding, stream.line_buffering)
    if stream is not None:
        stream.flush()
    file = io.BufferedWriter(_TolerantFile(number, "w", closefd=False))
    return io.TextIOWrapper(file, encoding, ENCODING_ERRORS, line_buffering=in_lines or number == 2)


class _TolerantFile(io.FileIO):
    """A file that drops what it cannot write: the reader of a pipe has gone, a terminal or a disk is no more."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(SPELLED_OUT.get(c) or ascii(c)[1:-1] for c in text), error.end
