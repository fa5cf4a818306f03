"""Processes that read damaged files; one that dies is replaced, and its death is a finding."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from fuzzing.cases import Outcome

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
Case = tuple[str, int]
"""Kind and seed."""


class Worker:
    """A process that answers one case at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, case: Case) -> Outcome:
        """Read a damaged file; a process that dies over it is an outcome."""
        if self._process is None:
            self._process = _start()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(f"{case[0]} {case[1]}\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if line:
            return Outcome(**json.loads(line))
        status = self._end()
        name = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        return Outcome(*case, "ended", f"the process ended: {name}")

    def _end(self) -> int:
        if self._process is None:
            return 0
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        status = self._process.wait()
        self._process.stdout.close()
        self._process = None
        return status


def _start() -> subprocess.Popen[str]:
    paths = [str(Path(__file__).parents[1]), *sys.path]
    environment = os.environ | ONE_THREAD | {"MALLOC_ARENA_MAX": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "fuzzing.worker"]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment
    )


def read_all(cases: Iterable[Case], num_workers: int = 1) -> Iterator[Outcome]:
    """Read damaged files in several processes, and yield the outcomes in order."""
    waiting = list(cases)
    workers = [Worker() for _ in range(num_workers)]
    try:
        with ThreadPoolExecutor(num_workers) as threads:
            for start in range(0, len(waiting), 100 * num_workers):
                chunk = waiting[start : start + 100 * num_workers]
                shares = [chunk[i * 100 : (i + 1) * 100] for i in range(num_workers)]
                results = threads.map(lambda w, share: [w.read(c) for c in share], workers, shares)
                for outcomes in results:
                    yield from outcomes
    finally:
        for worker in workers:
            worker._end()
