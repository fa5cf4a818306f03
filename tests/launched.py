"""Worker processes for tests, started as torchrun starts them."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence

SECONDS = 240


def start(arguments: Sequence[str], count: int, **variables: str) -> list[subprocess.Popen[str]]:
    """Start `count` workers of `python ARGUMENTS`, connected through a free port of this machine."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "UNRENDER_WORKER_TIMEOUT": "60"} | variables
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def outputs(workers: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Wait for workers; return exit status, stdout and stderr of each."""
    found = [worker.communicate(timeout=SECONDS) for worker in workers]
    return [(worker.returncode, *texts) for worker, texts in zip(workers, found, strict=True)]
