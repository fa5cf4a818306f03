"""Batches: a task for each file of a folder, spread over workers, with a table of the results."""

import csv
import dataclasses
import hashlib
import io
import json
import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from unrender._wording import counted
from unrender.errors import InputError, UnrenderError
from unrender.io.file_names import safe_file_names, without_suffix
from unrender.io.files import DiskFullError, atomic_write, read_bytes, reading
from unrender.io.images import is_hidden
from unrender.runs.folder import CONFIG, METRICS, create_run_folder, is_run_of
from unrender.runs.progress import run_views
from unrender.workers import Workers

log = logging.getLogger("unrender")
SUMMARY = "summary.csv"
LAST_RESULT = "report.html"
"""What every task writes last: a folder that has it is complete."""
ERROR = "error"
"""Status of a file whose task raised an error."""
MAX_LISTED = 20
"""Files that are listed on the terminal."""


class BatchTask(Protocol):
    """A task that can be run on any number of files."""

    @property
    def name(self) -> str:
        """Name of the command."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Entries of metrics.json in the table; the first one is the status."""

    def settings(self, file: Path) -> Mapping[str, Any]:
        """Return the settings of the run of a file, for its config.json."""

    def run(self, file: Path, folder: Path) -> None:
        """Compute the results of a file and write them to a folder."""


@dataclasses.dataclass(frozen=True)
class BatchResult:
    """The result of a file, as a row of the table."""

    index: int
    last_index: int
    name: str
    """Of its folder."""
    status: str
    columns: tuple[Any, ...]
    """Values of metrics.json; None for errors."""
    seconds: float
    message: str = ""
    """Why there is no result."""


def input_files(folder: Path, *kinds: Collection[str]) -> list[Path]:
    """List the files in a folder with one of some suffixes, by name: those of the first kind that it has."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not is_hidden(path.name))
    for suffixes in kinds:
        if found := [path for path in paths if path.suffix.lower() in suffixes]:
            return found
    return []


def file_beside(path: Path | None, file: Path) -> Path | None:
    """Return what belongs to an input file: of a folder, the file with the same stem; any other path is for all."""
    if path is None or not path.is_dir():
        return path
    found = sorted(each for each in path.iterdir() if each.stem == file.stem and not is_hidden(each.name))
    if len(found) != 1:
        raise InputError(f"{path}: {'several files are' if found else 'no file is'} named like {file.name}")
    return found[0]


def refuse_workers(file: Path, workers: Workers) -> None:
    """Raise InputError if there are several workers for one file."""
    if workers.count > 1:
        raise InputError(
            f"{file}: one file is a task for one process, but torchrun started {workers.count}; give a folder of files"
        )


def run_batch(task: BatchTask, files: Sequence[Path], folder: Path, workers: Workers) -> list[BatchResult]:
    """Run a task on each file, in a folder of its own, and write the table; return its rows to the first worker.

    A file whose task fails is listed, and the others continue. Complete results are kept. Signals end it early.
    """
    names = "\n".join(file.name for file in files)
    workers.require_same(
        "the input files", f"{len(files)} files ({hashlib.sha256(names.encode()).hexdigest()[:8]})"
    )
    results = run_views(_results(task, files, folder, workers), _describe, workers, allow_empty=True)
    if workers.is_first:
        _write_summary(folder / SUMMARY, task, results)
    return results


def print_batch(
    results: Sequence[BatchResult], files: Sequence[Path], failures: Collection[str], folder: Path
) -> None:
    """Print how many results have which status, which of them are failures, and where the table is."""
    statuses = ", ".join(
        f"{number} {status}" for status, number in Counter(r.status for r in results).items()
    )
    print(f"{len(results)} of {counted(len(files), 'file')}: {statuses or 'none is complete'}")
    failed = [result for result in results if result.status in failures]
    for result in failed[:MAX_LISTED]:
        print(f"{result.name}: {result.message or result.status}")
    if len(failed) > MAX_LISTED:
        print(f"and {len(failed) - MAX_LISTED} more, listed in {SUMMARY}")
    print(folder / SUMMARY)


def _results(task: BatchTask, files: Sequence[Path], folder: Path, workers: Workers) -> Iterator[BatchResult]:
    """Yield the results of this worker: of the next file whenever one is complete, since some take longer."""
    names = _folder_names(files)
    for index in workers.claims(len(files), str(folder)):
        start, file, own = time.perf_counter(), files[index], folder / names[index]
        values: dict[str, Any] = {}
        message = ""
        try:
            settings = task.settings(file)
            if not ((own / LAST_RESULT).is_file() and is_run_of(own, task.name, settings)):
                create_run_folder(own, task.name, settings)
                task.run(file, own)
            values = _metrics(own / METRICS)
        except DiskFullError:  # which every file would meet
            raise
        except (UnrenderError, OSError, MemoryError, torch.OutOfMemoryError) as error:
            message = " ".join(str(error).split()) or type(error).__name__
            log.warning("%s: %s", names[index], message)
        seconds = values.get("seconds", time.perf_counter() - start)
        status, *columns = (values.get(name) for name in task.columns)
        yield BatchResult(
            index, len(files) - 1, names[index], status or ERROR, tuple(columns), seconds, message
        )


def _folder_names(files: Sequence[Path]) -> list[str]:
    """Name the folder of each file by its stem, or by its whole name where several have the same stem."""
    reserved = [CONFIG, SUMMARY]
    stems = safe_file_names([without_suffix(file.name) for file in files] + reserved)
    is_unique = stems[-len(reserved) :] == reserved
    return (stems if is_unique else safe_file_names([file.name for file in files] + reserved))[: len(files)]


def _metrics(path: Path) -> dict[str, Any]:
    data = read_bytes(path)
    with reading(path):
        metrics: dict[str, Any] = json.loads(data)
    return metrics


def _describe(result: BatchResult) -> str:
    return f"{result.index + 1} of {result.last_index + 1}: {result.name} {result.status}"


def _write_summary(path: Path, task: BatchTask, results: Sequence[BatchResult]) -> None:
    """Write the table: a row for each result."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["name", "status", *task.columns[1:], "seconds", "message"])
    for result in results:
        seconds = f"{result.seconds:.3f}"
        table.writerow([result.name, result.status, *result.columns, seconds, result.message])
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
