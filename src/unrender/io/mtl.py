"""MTL, the material libraries of Wavefront OBJ; only the diffuse color and texture of each material are read."""

import contextlib
import math
import os
from pathlib import Path
from typing import NamedTuple

from unrender.errors import FileFormatError
from unrender.io.confinement import check_readable
from unrender.io.face_materials import BaseColor
from unrender.io.files import is_file, read_bytes, reading
from unrender.io.lines import is_number, split_lines

WHITE = (1.0, 1.0, 1.0)
_OPTIONS = {
    "blendu": 1, "blendv": 1, "bm": 1, "boost": 1, "cc": 1, "clamp": 1, "colorspace": 1,
    "imfchan": 1, "mm": 2, "o": 3, "s": 3, "t": 3, "texres": 1, "type": 1,
}  # fmt: skip
"""Number of arguments of each option of a map; of three numbers, the last two are optional."""
_UNSUPPORTED = ("mm", "t", "type")
"""Options that change the colors and are not supported. The others can be ignored."""


class MtlMaterial(NamedTuple):
    """A material of a library."""

    library: Path
    color: tuple[float, float, float] = WHITE
    map: str = ""
    """Arguments of `map_Kd`."""
    line: int = 0
    """Line number of `map_Kd`."""

    def base_color(self, mesh: Path) -> BaseColor:
        """Return the texture, without the color as in most programs; without texture, the color."""
        if not self.map:
            return BaseColor(self.color)
        with reading(self.library):
            name, options = _split_map(self.map, self.line)
        clamped = options.get("clamp") == ["on"]
        return BaseColor(
            image=find_file(self.library.parent, name),
            source=f"{mesh}: {self.library}, line {self.line}",
            wrap=("clamp", "clamp") if clamped else ("repeat", "repeat"),
            scale=_pair(options.get("s", []), 1.0),
            offset=_pair(options.get("o", []), 0.0),
        )


def read_mtl(path: Path) -> dict[str, MtlMaterial]:
    """Read the materials of a library, by name."""
    data = read_bytes(path)
    materials: dict[str, MtlMaterial] = {}
    name = ""
    with reading(path):
        for number, line in enumerate(split_lines(data), 1):
            keyword, rest = _keyword(line)
            if keyword == "newmtl":
                name = rest
                materials[name] = MtlMaterial(path)
            elif keyword in ("kd", "map_kd") and not materials:
                raise FileFormatError(f"line {number}: {keyword} without material: no newmtl precedes it")
            elif keyword == "kd":
                materials[name] = materials[name]._replace(color=_color(rest, number))
            elif keyword == "map_kd":
                materials[name] = materials[name]._replace(map=rest, line=number)
    return materials


def _keyword(line: str) -> tuple[str, str]:
    """Split a line into its keyword in lower case, and the rest without comment."""
    line = line.partition(" #")[0].strip()
    keyword, rest = _first(line) if line else ("", "")
    return keyword.lower(), rest


def _color(text: str, line: int) -> tuple[float, float, float]:
    """Parse three numbers, or one for all channels, clamped to [0, 1]."""
    words = text.split()
    words = words * 3 if len(words) == 1 else words
    if len(words) < 3 or not all(is_number(word) and not math.isnan(float(word)) for word in words[:3]):
        raise FileFormatError(f"line {line}: Kd should have 3 numbers in [0, 1], got {text[:40]!r}")
    red, green, blue = (min(max(float(word), 0.0), 1.0) for word in words[:3])
    return red, green, blue


def _split_map(text: str, line: int) -> tuple[str, dict[str, list[str]]]:
    """Split `-s 2 2 -clamp on an image.png` into the file name and the options."""
    options: dict[str, list[str]] = {}
    while text.startswith("-") and (option := _first(text)[0][1:].lower()) in _OPTIONS:
        if option in _UNSUPPORTED:
            raise FileFormatError(f"line {line}: option -{option} of map_Kd is not supported; remove it")
        text, taken = _first(text)[1], options.setdefault(option, [])
        while text and len(taken) < _OPTIONS[option] and (not taken or is_number(_first(text)[0])):
            word, text = _first(text)
            taken.append(word)
    if not text:
        raise FileFormatError(f"line {line}: map_Kd has no file name")
    for option in ("s", "o"):
        if not all(is_number(word) for word in options.get(option, [])):
            raise FileFormatError(f"line {line}: option -{option} of map_Kd should have numbers")
    return text, options


def map_file(text: str, line: int) -> str:
    """Return the file name of a map, without its options."""
    return _split_map(text, line)[0]


def _first(text: str) -> tuple[str, str]:
    word, *rest = text.split(None, 1)
    return word, rest[0] if rest else ""


def _pair(words: list[str], default: float) -> tuple[float, float]:
    first, second = (*(float(word) for word in words[:2]), default, default)[:2]
    return first, second


def find_file(folder: Path, text: str) -> Path:
    """Find a file referenced from a folder, with either kind of slash, also in another case.

    A path of another machine is found by its name alone.
    """
    name = text.encode("latin-1").decode("utf-8", "replace").strip('"').replace("\\", "/")
    try_first = folder / name
    if is_file(try_first):
        return try_first
    for other in (name, Path(name).name):
        found = _in_another_case(folder, other)
        if found is not None:
            return found
    return try_first


def _in_another_case(folder: Path, name: str) -> Path | None:
    """Return the file below a folder whose name differs in case only; None if there is none, or several."""
    path = folder
    for part in Path(name).parts:
        if part in ("..", Path(name).anchor) or "\0" in part:
            return None
        check_readable(path)
        with contextlib.suppress(OSError):
            entries = {entry for entry in os.listdir(path) if entry.casefold() == part.casefold()}
            if part in entries or len(entries) == 1:
                path /= part if part in entries else entries.pop()
                continue
        return None
    return path if is_file(path) else None
