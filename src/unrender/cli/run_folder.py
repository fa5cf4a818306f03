"""The folder of a run: config.json, metrics.json, results, report.html."""

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unrender._version import __version__
from unrender.errors import InputError
from unrender.io.files import write_whole


def open_run_folder(task: str, name: str, output: Path | None) -> Path:
    """Make the folder before the work begins, so that a place that cannot be written is known at once."""
    folder = output or Path("runs") / task / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder}: is a file; give a folder, made if it is not there")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be made: {error.strerror}") from error
    write_json(
        folder / "config.json", {"unrender": __version__, "task": task}
    )  # fails if nothing can be written
    return folder


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
