"""Damage: to bytes, to text, and to the structure of JSON."""

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator

from fuzzing.layouts import Layout, Part

NUMBER = re.compile(rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
WORDS = (
    *b"0 -1 1 2 255 256 65536 100000000 2147483647 -2147483648 4294967295 9223372036854775807 18446744073709551616 "
    b"99999999999999999999999 1e-300 1e-46 1e-20 1e15 1e20 1e39 -1e39 1e300 1e308 1e400 -1e400 nan NaN -nan inf -inf "
    b"Infinity null true x -- 1e 0x10 1_000 1,5 ../../x /dev/zero \xff \x00".split(),
    *(b"", b" ", b"\n"),
)
"""What numbers and words in text are replaced by."""
INTEGERS = (
    0,
    1,
    2,
    -1,
    3,
    255,
    256,
    2**15,
    2**16,
    2**24,
    2**28,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
)
FLOATS = (0.0, -1.0, np.nan, np.inf, -np.inf, 1e-45, 1e-30, 1e15, 1e20, 3e38, 1e39, 1e308, -1e308, 5e-324)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 0.5, 1e-300, 1e-46, 1e-20, 1e15, 1e20, 1e39, -1e39, 1e308, 2**31, 2**63,
    -(2**63), 10**8, 10**30, float("nan"), float("inf"), float("-inf"), "", "x", "nan", "1", "0x10", "../../x",
    "/dev/zero",
    "a\0b", "\\\\host\\share\\x.png", "a" * 300, "é" * 200, [], {}, [[]], [0], [1, 2, 3], [1e308] * 3, {"x": 1},
    [None] * 4,
)  # fmt: skip
"""What values in JSON are replaced by."""


NOT_OPENED = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OSError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What a layout raises for a file that was damaged before."""


def damage(data: bytes, layout: Layout, rng: Generator) -> bytes:
    """Return a file with one to three damages, to the whole or to a part of it."""
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        try:
            parts = layout.open(data) if rng.random() < 0.8 else []
        except NOT_OPENED:
            parts = []  # damaged before
        if not parts:
            data = _damaged(Part("binary", data), rng)
            continue
        chosen = int(rng.integers(len(parts)))
        contents = [part.data for part in parts]
        contents[chosen] = _damaged(parts[chosen], rng)
        data = layout.close(contents)
    return data


def _damaged(part: Part, rng: Generator) -> bytes:
    kinds = {
        "binary": BYTE_DAMAGES,
        "text": TEXT_DAMAGES + BYTE_DAMAGES[:3],
        "json": JSON_DAMAGES + TEXT_DAMAGES[:3],
    }
    choices = kinds[part.kind]
    return choices[int(rng.integers(len(choices)))](part.data, rng)


def _position(data: bytes, rng: Generator) -> int:
    """Choose a byte, often one of the first, where headers are."""
    limit = min(len(data), 400) if rng.random() < 0.5 else len(data)
    return int(rng.integers(max(limit, 1)))


def _span(data: bytes, rng: Generator) -> tuple[int, int]:
    start = _position(data, rng)
    return start, min(len(data), start + int(rng.choice([1, 2, 4, 8, 16, 100, 1000])))


def _flip_bits(data: bytes, rng: Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9)) if data else 0):
        changed[_position(data, rng)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _set_bytes(data: bytes, rng: Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5)) if data else 0):
        changed[_position(data, rng)] = int(rng.integers(256))
    return bytes(changed)


def _truncate(data: bytes, rng: Generator) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def _fill(data: bytes, rng: Generator) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + bytes([int(rng.choice([0, 255, 127]))]) * (end - start) + data[end:]


def _remove(data: bytes, rng: Generator) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def _duplicate(data: bytes, rng: Generator) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + data[start:end] * int(rng.choice([1, 2, 100])) + data[end:]


def _move(data: bytes, rng: Generator) -> bytes:
    start, end = _span(data, rng)
    place = _position(data, rng)
    return data[:place] + data[start:end] + data[place + end - start :]


def _set_integer(data: bytes, rng: Generator) -> bytes:
    """Write a value, the length of the file or a number near to what is there, as fields of headers are."""
    size = int(rng.choice([1, 2, 4, 8]))
    start, order = _position(data, rng) // size * size, "<" if rng.random() < 0.8 else ">"
    before = int.from_bytes(data[start : start + size], "little" if order == "<" else "big")
    choices = (*INTEGERS, len(data), len(data) + 1, before + 1, before - 1, before * 2, before << 8)
    value = choices[int(rng.integers(len(choices)))] % 256**size
    return data[:start] + value.to_bytes(size, "little" if order == "<" else "big") + data[start + size :]


def _set_float(data: bytes, rng: Generator) -> bytes:
    kind = str(rng.choice(["<f", "<d", ">f", ">d"]))
    size = struct.calcsize(kind)
    start = _position(data, rng) // 4 * 4
    with np.errstate(all="ignore"):
        value = np.array(FLOATS[int(rng.integers(len(FLOATS)))]).astype(f"{kind[0]}{kind[1]}").tobytes()
    return data[:start] + value + data[start + size :]


def _change_number(data: bytes, rng: Generator) -> bytes:
    found = list(NUMBER.finditer(data))
    if not found:
        return _flip_bits(data, rng)
    match = found[int(rng.integers(len(found)))]
    return data[: match.start()] + _word(rng) + data[match.end() :]


def _change_word(data: bytes, rng: Generator) -> bytes:
    found = list(re.finditer(rb"[^\s,;:]+", data))
    if not found:
        return _flip_bits(data, rng)
    one, other = (found[int(rng.integers(len(found)))] for _ in range(2))
    word = other[0] if rng.random() < 0.5 else _word(rng)
    return data[: one.start()] + word + data[one.end() :]


def _word(rng: Generator) -> bytes:
    return WORDS[int(rng.integers(len(WORDS)))]


def _change_column(data: bytes, rng: Generator) -> bytes:
    """Replace the same word of all lines."""
    column, word = int(rng.integers(8)), _word(rng)
    lines = [line.split(b" ") for line in data.split(b"\n")]
    return b"\n".join(
        b" ".join([*w[:column], word, *w[column + 1 :]]) if len(w) > column else b" ".join(w) for w in lines
    )


def _change_lines(data: bytes, rng: Generator) -> bytes:
    lines = data.split(b"\n")
    i, j = (int(rng.integers(len(lines))) for _ in range(2))
    match int(rng.integers(5)):
        case 0:
            del lines[i]
        case 1:
            lines[i:i] = [lines[j]] * int(rng.choice([1, 2, 1000]))
        case 2:
            lines[i], lines[j] = lines[j], lines[i]
        case 3:
            words = lines[i].split(b" ")
            lines[i] = b" ".join(words * int(rng.choice([2, 3, 1000])))
        case _:
            lines[i] = lines[i][: int(rng.integers(len(lines[i]) + 1))]
    return b"\n".join(lines)


def _change_json(data: bytes, rng: Generator) -> bytes:
    """Replace, remove, repeat or swap values anywhere in the tree."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):  # damaged before
        return _change_number(data, rng)
    slots = _slots(tree)
    if not slots:
        return json.dumps(VALUES[int(rng.integers(len(VALUES)))]).encode()
    (parent, key), (other, place) = (slots[int(rng.integers(len(slots)))] for _ in range(2))
    match int(rng.integers(8)):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, list):
            parent[key:key] = [parent[key]] * int(rng.choice([1, 2, 1000]))
        case 2:
            parent[key] = json.loads(json.dumps(other[place]))
        case 3 if isinstance(parent[key], str):
            text, start = parent[key], int(rng.integers(len(parent[key]) + 1))
            parent[key] = (
                text[:start] + str(rng.choice(["\0", "/", "..", "\\", " ", "\n", "é"])) + text[start:]
            )
        case 4 if isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
            parent[key] = parent[key] * float(rng.choice([-1, 0, 2, 1e-20, 1e10, 1e20, 1e40]))
        case 5 if isinstance(parent, dict):
            parent[str(rng.choice([*parent, "x", ""]))] = parent.pop(key)
        case _:
            parent[key] = VALUES[int(rng.integers(len(VALUES)))]
    return json.dumps(tree).encode()


def _nest(data: bytes, rng: Generator) -> bytes:
    depth = int(rng.choice([10, 10_000]))
    return b"[" * depth + data + b"]" * depth if rng.random() < 0.1 else _change_json(data, rng)


def _slots(tree: Any) -> list[tuple[Any, Any]]:
    """List the places of all values below the root: container and key. Long lists of numbers count as one in four."""
    found: list[tuple[Any, Any]] = []
    stack = [tree]
    while stack:
        node = stack.pop()
        keys = (
            list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        )
        found += [(node, key) for key in keys]
        stack += [node[key] for key in keys]
    return found


Damage = Callable[[bytes, Generator], bytes]
BYTE_DAMAGES: tuple[Damage, ...] = (
    _flip_bits, _set_bytes, _truncate, _fill, _remove, _duplicate, _move, _set_integer, _set_integer, _set_float,
    _set_float,
)  # fmt: skip
TEXT_DAMAGES: tuple[Damage, ...] = (
    _change_number, _change_number, _change_word, _change_column, _change_lines, _change_lines,
)  # fmt: skip
JSON_DAMAGES: tuple[Damage, ...] = (_change_json,) * 9 + (_nest,)
