"""The folder of a run: config.json, metrics.json, curves.json, results, report.html."""

import dataclasses
import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unrender._version import __version__
from unrender.errors import InputError
from unrender.io.files import write_whole


def open_run_folder(task: str, name: str, output: Path | None) -> Path:
    """Make a new folder before the work begins, so that a place that cannot be written is known at once."""
    return make_run_folder(choose_run_folder(task, name, output), task)


def choose_run_folder(task: str, name: str, output: Path | None) -> Path:
    """Say where the results go; refuse a folder in which there is something, which no run may write into."""
    folder = output or _unused(Path("runs") / task / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder}: is a file; give a folder, made if it is not there")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"--output {folder}: there is something in it already; give a new folder, or empty it"
        )
    return folder


def make_run_folder(folder: Path, task: str) -> Path:
    """Make a folder and write its first file, which fails if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be made: {error.strerror}") from error
    write_json(folder / "config.json", {"unrender": __version__, "task": task})
    return folder


def _unused(folder: Path) -> Path:
    """Tell runs that begin within one second apart."""
    numbered = (folder.with_name(f"{folder.name}-{n}") for n in itertools.count(2))
    return next(place for place in itertools.chain([folder], numbered) if not place.exists())


def changes(config: Any) -> dict[str, Any]:
    """List the fields of a config that differ from their defaults."""
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default
    }


def as_options(given: Mapping[str, Any]) -> list[str]:
    """Write values as options of the command line."""
    line = []
    for name, value in given.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            line.append(f"--{'' if value else 'no-'}{flag}")
        else:
            line += [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
    return line


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all; what is infinite or not a number becomes null."""
    with write_whole(path) as file:
        file.write((json.dumps(_plain(values), indent=2, allow_nan=False) + "\n").encode())


def write_curves(
    folder: Path,
    series: Mapping[str, Sequence[float]],
    steps: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Write curves.json: the values of each series, and at which steps; every step from the first, if not said."""
    table = {
        name: {"step": list((steps or {}).get(name, range(1, len(values) + 1))), "value": list(values)}
        for name, values in series.items()
    }
    write_json(folder / "curves.json", table)


def _plain(value: Any) -> Any:
    """Turn configs, paths and tuples into what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
