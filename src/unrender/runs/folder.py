"""The folder of a run: config.json, metrics.json, curves.json, results, report.html."""

import dataclasses
import hashlib
import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unrender._version import __version__
from unrender.errors import InputError
from unrender.io.confinement import confine_writes
from unrender.io.file_names import safe_file_names
from unrender.io.files import atomic_write, read_bytes, reading, remove_unfinished
from unrender.workers import ALONE, Workers, name_of

CONFIG, METRICS = "config.json", "metrics.json"
VIEWS_MISSING = "views_missing"
"""Entry of metrics.json after an interruption: the number of views that the same command, started again, adds."""
MAX_LISTED = 5
"""Settings that a message lists."""
RUN_FORMAT = 2
"""Version of the layout of a run folder, written to config.json. Runs of another format are not read."""


def start_run(
    task: str, name: str, output: Path | None, settings: Mapping[str, Any], workers: Workers = ALONE
) -> Path:
    """Create the folder of a run and write its config.json, so that a path that cannot be written fails early.

    All `workers` write to it. A folder of the same run that was not finished is continued. The first worker decides:
    it may have started a new run before another one looks.
    """
    workers.require_same("the version or the settings", _fingerprint(task, settings))
    folder = _prepare(task, name, output, settings) if workers.is_first else None
    folder = workers.of_first(folder)  # from here on, it exists
    assert folder is not None
    if not (folder / CONFIG).is_file():
        raise InputError(
            f"{name_of(workers.rank)} does not see {folder}: workers on several machines need a shared file system"
        )
    confine_writes(folder)
    return folder


def _fingerprint(task: str, settings: Mapping[str, Any]) -> str:
    """Tell commands apart that would not write the same."""
    text = json.dumps(_jsonable(_config(task, settings)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _prepare(task: str, name: str, output: Path | None, settings: Mapping[str, Any]) -> Path:
    """Return the folder of a run, new or to be continued, with its config.json."""
    folder = output if _is_unfinished(output, task, settings) else None
    if folder is None:
        if output is not None:
            _refuse_other_settings(output, task, settings)
        folder = choose_run_folder(task, name, output)
    create_run_folder(folder, task, settings)
    remove_unfinished(folder)
    return folder


def _is_unfinished(folder: Path | None, task: str, settings: Mapping[str, Any]) -> bool:
    """Say whether a folder holds a run with the same settings that ended before it wrote all of its results."""
    return folder is not None and is_run_of(folder, task, settings) and not _is_finished(folder)


def _is_finished(folder: Path) -> bool:
    return (folder / METRICS).is_file() and not _read_json(folder / METRICS).get(VIEWS_MISSING)


def is_run_of(folder: Path, task: str, settings: Mapping[str, Any]) -> bool:
    """Say whether a folder holds a run of a task with these settings, on whichever device."""
    return (folder / CONFIG).is_file() and not _differences(folder, task, settings)


def _differences(folder: Path, task: str, settings: Mapping[str, Any]) -> list[str]:
    """Compare the settings of the run in a folder with others, on whichever device: a phrase for each difference."""
    found = _flat(_read_json(folder / CONFIG))
    expected = _flat(json.loads(json.dumps(_jsonable(_config(task, settings)))))
    return [
        f"{path[-1]} is {json.dumps(found.get(path), ensure_ascii=False)} there and "
        f"{json.dumps(expected.get(path), ensure_ascii=False)} here"
        for path in {**expected, **found}
        if path != ("device",) and found.get(path) != expected.get(path)
    ]


def _flat(values: Mapping[str, Any], *outer: str) -> dict[tuple[str, ...], Any]:
    """Return the entries of nested objects, by the names that lead to them."""
    flat: dict[tuple[str, ...], Any] = {}
    for name, value in values.items():
        flat |= _flat(value, *outer, name) if isinstance(value, dict) else {(*outer, name): value}
    return flat


def _read_json(path: Path) -> dict[str, Any]:
    """Read an object of a JSON file; {} if it holds something else."""
    data = read_bytes(path)
    with reading(path):
        values = json.loads(data)
    return values if isinstance(values, dict) else {}


def _refuse_other_settings(folder: Path, task: str, settings: Mapping[str, Any]) -> None:
    """Raise InputError if a folder holds a run of the task: one that is finished, or with other settings."""
    if not (folder / CONFIG).is_file() or _read_json(folder / CONFIG).get("task") != task:
        return
    where = f"--output {folder}: the folder is not empty: it holds"
    if different := _differences(folder, task, settings):
        raise InputError(
            f"{where} results of `unrender {task}` with other settings: {'; '.join(different[:MAX_LISTED])}; give a "
            "new folder, or the same settings to continue"
        )
    raise InputError(f"{where} the finished results of the same command; give a new folder")


def choose_shared_folder(task: str, name: str, output: Path | None, workers: Workers) -> Path:
    """Return the folder that `choose_run_folder` chooses on the first worker."""
    folder = choose_run_folder(task, name, output) if workers.is_first else None
    chosen = workers.of_first(folder)
    assert chosen is not None
    return chosen


def choose_run_folder(task: str, name: str, output: Path | None) -> Path:
    """Return the folder for the results, by default runs/TASK/NAME-TIME; InputError if it is not empty."""
    [safe] = safe_file_names([name])
    folder = output or _unused(Path("runs") / task / f"{safe}-{time.strftime('%Y%m%d-%H%M%S')}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder}: is a file; give a folder (it is created if necessary)")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"--output {folder}: the folder is not empty; give a new or an empty one")
    return folder


def create_run_folder(folder: Path, task: str, settings: Mapping[str, Any]) -> None:
    """Create a folder and write its config.json: the run format, the version of unrender, task and settings.

    From then on, the command that runs can write there only.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be created: {error.strerror}") from error
    confine_writes(folder)
    write_json(folder / CONFIG, _config(task, settings))


def _config(task: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": RUN_FORMAT, "unrender": __version__, "task": task, **settings}


def refuse_own_folder(output: Path | None, source: Path) -> None:
    """Raise InputError if the results would go into the folder they are made from."""
    if output is not None and output.resolve() == source.resolve():
        raise InputError(f"--output {output}: is the input folder; give another one")


def _unused(folder: Path) -> Path:
    """Append a number to the names of runs that start within the same second."""
    numbered = (folder.with_name(f"{folder.name}-{n}") for n in itertools.count(2))
    return next(path for path in itertools.chain([folder], numbered) if not path.exists())


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; infinite values and NaN become null."""
    with atomic_write(path) as file:
        file.write((json.dumps(_jsonable(values), indent=2, allow_nan=False) + "\n").encode())


def write_metrics(folder: Path, metrics: Mapping[str, Any], views_missing: int = 0) -> None:
    """Write metrics.json, which makes a run finished, unless views are missing."""
    missing = {VIEWS_MISSING: views_missing} if views_missing else {}
    write_json(folder / METRICS, {**metrics, **missing})


def write_curves(
    folder: Path,
    series: Mapping[str, Sequence[float]],
    steps: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Write curves.json: the values of each series and their steps, which by default count from 1."""
    table = {
        name: {"step": list((steps or {}).get(name, range(1, len(values) + 1))), "value": list(values)}
        for name, values in series.items()
    }
    write_json(folder / "curves.json", table)


def _jsonable(value: Any) -> Any:
    """Convert dataclasses, paths and tuples to JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _jsonable(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
