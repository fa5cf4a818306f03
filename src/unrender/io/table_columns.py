"""Columns of tables of points: which hold coordinates, normals and colors, by their names or by their values."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.geometry_data import Floats

_AXES = {"x": 0, "y": 1, "z": 2, "0": 0, "1": 1, "2": 2}
_EASTINGS = (
    dict.fromkeys(("x", "e", "east", "easting", "eastings", "rechtswert", "ostwert", "este", "est"), 0)
    | dict.fromkeys(("y", "n", "north", "northing", "northings", "hochwert", "nordwert", "norte", "nord"), 1)
    | dict.fromkeys(
        ("up", "height", "elevation", "altitude", "elev", "alt", "z", "h", "hohe", "hoehe", "cota"), 2
    )
)
"""Names that surveyors use, without accents: English, German, Spanish, French."""
_CHANNELS = {"r": 0, "red": 0, "g": 1, "green": 1, "b": 2, "blue": 2, "0": 0, "1": 1, "2": 2}
_POINTS = re.compile(
    r"((?:points?|pos|positions?|coord|coords|coordinates?|vertex|vertices|locations?|p)?(?:_m)?(?:_?xyz)?)_?([xyz012])"
)
_NORMALS = re.compile(r"(n|nrm|norm|normals?)_?([xyz012])")
_COLORS = re.compile(
    r"(|colou?rs?|rgba?|diffuse|scan)_?(red|green|blue|r|g|b|(?<=[a-z_])[012])(?:_?f|_?float)?"
)
_LATITUDES = {"lat", "latitude", "latitud", "breite", "breitengrad", "geobreite"}
_LONGITUDES = {"lon", "lng", "long", "longitude", "longitud", "lange", "laenge", "langengrad", "laengengrad"}
UNIT_TOLERANCE = 0.02
"""Largest difference of the length of a normal from 1, due to rounding."""
MIN_ROWS = 10
"""Number of rows from which values alone tell that the first columns hold something else than coordinates."""


class Columns(NamedTuple):
    """Indices of the columns of a table, and its column names if it has a header."""

    points: tuple[int, ...]
    normals: tuple[int, ...] | None = None
    colors: tuple[int, ...] | None = None
    names: Sequence[str] = ()

    def describe(self, num_columns: int) -> str:
        """Say which columns are used for what, and which are ignored."""
        parts = [
            f"{role} from {self._list(indices)}"
            for role, indices in (
                ("points", self.points),
                ("normals", self.normals),
                ("colors", self.colors),
            )
            if indices is not None
        ]
        used = {*self.points, *(self.normals or ()), *(self.colors or ())}
        ignored = [i for i in range(num_columns) if i not in used]
        return "; ".join(parts + ([f"ignored: {self._list(ignored)}"] if ignored else []))

    def _list(self, indices: Sequence[int]) -> str:
        if self.names:
            return ", ".join(self.names[i] for i in indices)
        numbers = ", ".join(str(i + 1) for i in indices)
        return f"column{'s' * (len(indices) > 1)} {numbers}"


def columns_by_name(names: Sequence[str]) -> Columns | None:
    """Find x y z, normals and colors by the names of columns; None if there are no coordinates.

    Knows names such as x, Points:0, Points_m_XYZ:0, easting, nx, Normals:0, normal_x, red, R and Rf.
    """
    plain = _plain(names)
    points = _complete(plain, _POINTS, _AXES) or _exact(plain, _EASTINGS)
    if points is None:
        return None
    normals, colors = _complete(plain, _NORMALS, _AXES), _complete(plain, _COLORS, _CHANNELS)
    return Columns(points, normals, colors, names)


def has_angles(names: Sequence[str]) -> bool:
    """Return whether columns hold latitude and longitude."""
    words = {word for name in _plain(names) for word in name.split("_")}
    return bool(_LATITUDES & words) and bool(_LONGITUDES & words)


def _plain(names: Sequence[str]) -> list[str]:
    """Return names in lower case, without accents and units in brackets, and with `_` between words."""
    letters = (
        "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
        for name in names
    )
    bare = (re.sub(r"\(.*?\)|\[.*?\]", "", name.lower()) for name in letters)
    return [re.sub(r"[^a-z0-9]+", "_", name).strip("_") for name in bare]


def _complete(names: Sequence[str], pattern: re.Pattern[str], axes: dict[str, int]) -> tuple[int, ...] | None:
    """Return the columns of the first group of names with the same prefix that has all three axes."""
    groups: dict[str, dict[int, int]] = {}
    for index, name in enumerate(names):
        match = pattern.fullmatch(name)
        if match and not (match[1] == "" and match[2].isdecimal()):
            groups.setdefault(match[1], {}).setdefault(axes[match[2]], index)
    found = [group for group in groups.values() if len(group) == 3]
    return tuple(found[0][axis] for axis in range(3)) if found else None


def _exact(names: Sequence[str], axes: dict[str, int]) -> tuple[int, ...] | None:
    group: dict[int, int] = {}
    for index, name in enumerate(names):
        if name in axes:
            group.setdefault(axes[name], index)
    return tuple(group[axis] for axis in range(3)) if len(group) == 3 else None


def columns_by_value(table: Floats, *, has_intensity: bool = False) -> Columns:
    """Guess the columns of a table without names: x y z first, then unit normals, and colors.

    Colors are 0 to 1, or whole numbers up to 255 or 65535. In seven columns, the fourth may be an intensity, as pts
    files have (`has_intensity`), or the seventh a label; if colors may be either, none are used. A first column that
    counts the rows is ignored. Raises FileFormatError if colors or normals seem to come before the coordinates.
    """
    count = table.shape[1]
    start = 1 if count > 3 and _counts_rows(table[:, 0]) else 0
    first = tuple(range(start, start + 3))
    triples = [tuple(range(i, i + 3)) for i in range(start + 3, count - 2, 3)][:2]
    if count - start == 7 and not _are_directions(table[:, triples[0]]):
        other = tuple(range(start + 4, start + 7))
        if has_intensity or not _are_colors(table[:, triples[0]]):
            triples = [other]
        elif _are_colors(table[:, other]):
            triples = []
    normals = next((t for t in triples if _are_directions(table[:, t])), None)
    colors = next((t for t in triples if t != normals and _are_colors(table[:, t])), None)
    if count - start >= 6 and len(table) >= MIN_ROWS and normals is None and colors is None:
        _refuse_swapped(table[:, first], table[:, start + 3 : start + 6])
    return Columns(first, normals, colors)


def _refuse_swapped(first: Floats, second: Floats) -> None:
    """Raise FileFormatError if the first three columns are colors or normals, and the next three can be neither."""
    whole = bool((second == np.rint(second)).all())
    kind = (
        "unit normals" if _are_directions(first) else "colors" if _are_colors(first) and not whole else None
    )
    if kind and not (kind == "colors" and first.max() <= 1):
        raise FileFormatError(
            f"the first three columns look like {kind}, not like coordinates; name the columns in a first line, such "
            f"as {'nx ny nz x y z' if kind == 'unit normals' else 'r g b x y z'}"
        )


def _counts_rows(column: Floats) -> bool:
    return len(column) >= MIN_ROWS and column[0] in (0, 1) and bool((np.diff(column) == 1).all())


def _are_directions(values: Floats) -> bool:
    lengths = np.linalg.norm(values, axis=1)
    unit = np.abs(lengths - 1) < UNIT_TOLERANCE
    return bool((unit | (lengths == 0) | np.isnan(lengths)).all() and unit.any())


def _are_colors(values: Floats) -> bool:
    if not bool((values >= 0).all()):
        return False
    whole = bool((values == np.rint(values)).all())
    return bool((values <= 1).all()) or (whole and bool((values <= 65535).all()))
