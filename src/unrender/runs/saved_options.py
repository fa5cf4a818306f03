"""Options of a run as its config.json holds them: read back, and checked like those on a command line."""

import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from unrender.errors import FileFormatError

Options = TypeVar("Options")


def options_from_json(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """Return a dataclass of options; FileFormatError for a value of another type than its field."""
    hints = typing.get_type_hints(kind)
    for name, value in values.items():
        if not _fits(value, hints[name]):
            raise FileFormatError(
                f"`{name}` has the value {str(value)[:60]}; it should be {_describe(hints[name])}"
            )
    return kind(**{name: _converted(value, hints[name]) for name, value in values.items()})


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return any(value == known and type(value) is type(known) for known in arguments)
    if origin is tuple:
        hints = [arguments[0]] * len(value) if arguments[-1] is ... and isinstance(value, list) else arguments
        return (
            isinstance(value, list)
            and len(value) == len(hints)
            and all(_fits(item, of) for item, of in zip(value, hints, strict=True))
        )
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is Path:
        return isinstance(value, str)
    return type(value) is hint


def _converted(value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and (hint is Path or Path in typing.get_args(hint)):
        return Path(value)
    return value


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(_describe(argument) for argument in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(map(repr, typing.get_args(hint)))
    return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))
