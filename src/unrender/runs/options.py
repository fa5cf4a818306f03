"""Options of commands: the changed ones, as command-line arguments, and checks that several commands share."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from unrender.errors import InputError

MAX_SIZE = 8192
"""Largest side of a rendered image, in pixels."""


def changed_options(*groups: Any) -> dict[str, Any]:
    """Return the fields of option dataclasses that differ from their defaults."""
    return {
        field.name: getattr(options, field.name)
        for options in groups
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != field.default
    }


def as_arguments(options: Mapping[str, Any]) -> list[str]:
    """Write options as command-line arguments: `{"min_opacity": 0.3}` becomes `--min-opacity 0.3`; None is omitted."""
    arguments = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            arguments.append(f"--{'' if value else 'no-'}{flag}")
        else:
            arguments += [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
    return arguments


def check_views(views: int | None, minimum: int = 1) -> None:
    """Raise InputError unless the number of views is at least `minimum`."""
    if views is not None and views < minimum:
        raise InputError(f"--views {views}: must be at least {minimum}")


def check_size(size: int | None) -> None:
    """Raise InputError unless an image size is 1 to `MAX_SIZE` pixels."""
    if size is not None and not 1 <= size <= MAX_SIZE:
        raise InputError(f"--size {size}: must be 1 to {MAX_SIZE} pixels")
