"""Worker processes for tests: started as torchrun starts them, or forked from one that has loaded torch."""

import atexit
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection

import pytest

SECONDS = 240
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
LOADED = ["torch._dynamo", "torch.distributed.nn", "numba", "unrender.cli.fit_mesh", "unrender.cli.fit_nerf"]
"""What forked processes need not load: it takes longer than what tests do in them."""


class Forked:
    """A process that runs `python ARGUMENTS` on one thread, as a fork; it skips what Python does at exit.

    It ends with the tests, at the latest.
    """

    def __init__(self, arguments: Sequence[str], **variables: str) -> None:
        context = multiprocessing.get_context("forkserver")
        (out, out_end), (err, err_end) = (context.Pipe(duplex=False) for _ in range(2))
        # that of this moment: the server keeps the one in which the first test has started it
        environment = os.environ | ONE_THREAD | variables
        self._process = context.Process(
            target=_run, args=(arguments, environment, out_end, err_end), daemon=True
        )
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ONE_THREAD.items():
                patch.setenv(name, value)
            context.set_forkserver_preload(LOADED)
            forkserver.ensure_running()
        self._process.start()
        atexit.register(self.kill)  # before multiprocessing waits for all that it has started
        self.stdout, self._stderr = (os.fdopen(os.dup(end.fileno()), encoding="utf-8") for end in (out, err))
        for end in (out, out_end, err, err_end):
            end.close()

    @property
    def returncode(self) -> int | None:
        """Exit status, negative after a signal."""
        return self._process.exitcode

    def kill(self) -> None:
        """Send SIGKILL, unless the process has ended."""
        self._process.kill()

    def communicate(self, *, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; return what is left of stdout and stderr, which pipes hold: at most 64 KiB each.

        A process that does not end in time is killed: TimeoutError has what it wrote to stderr.
        """
        try:
            self._process.join(timeout)
            is_late = self.returncode is None
        finally:  # also after Ctrl-C
            self.kill()
            self._process.join()
        with self.stdout, self._stderr:
            out, err = self.stdout.read(), self._stderr.read()
        if is_late:
            raise TimeoutError(f"process {self._process.pid} did not end in {timeout} seconds: {err}")
        return out, err


def _run(arguments: Sequence[str], environment: Mapping[str, str], out: Connection, err: Connection) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for end, descriptor in ((out, 1), (err, 2)):
        os.dup2(end.fileno(), descriptor)
        end.close()
    first, *sys.argv[1:] = arguments
    if first == "-c":
        code, *sys.argv[1:] = sys.argv[1:]
        exec(compile(code, "-c", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, os.path.dirname(first))
        runpy.run_path(first, run_name="__main__")


def variables_of_workers(count: int) -> list[dict[str, str]]:
    """Return what torchrun tells each of `count` workers, connected through a free port of this machine."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"UNRENDER_WORKER_TIMEOUT": "60"}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def fork(arguments: Sequence[str], count: int) -> Sequence[subprocess.Popen[str] | Forked]:
    """Fork `count` workers that run `python ARGUMENTS`; start them where there is no fork."""
    if not hasattr(os, "fork"):
        return start(arguments, count)
    return [Forked(arguments, **variables) for variables in variables_of_workers(count)]


def start(arguments: Sequence[str], count: int) -> list[subprocess.Popen[str]]:
    """Start `count` workers that run `python ARGUMENTS`, as torchrun does."""
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=os.environ | ONE_THREAD | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for variables in variables_of_workers(count)
    ]


def outputs(workers: Sequence[subprocess.Popen[str] | Forked]) -> list[tuple[int | None, str, str]]:
    """Wait for workers; return exit status, stdout and stderr of each. None of them outlives this."""
    try:
        found = [worker.communicate(timeout=SECONDS) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    return [(worker.returncode, *texts) for worker, texts in zip(workers, found, strict=True)]
