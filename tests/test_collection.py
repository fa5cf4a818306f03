import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

COLLECT = ["-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]


@pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="xdist compares what its workers collect")
def test_every_process_collects_the_same_tests(request):
    """Workers import the tests at different moments and with differently seeded hashes; ids must not show it."""
    config = request.config
    hashes = {"PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"}
    hashes["PYTEST_ADDOPTS"] = ""  # options of a user change what is printed
    chosen = ["-k", config.option.keyword, "-m", config.option.markexpr, *config.args]
    command = [sys.executable, *COLLECT, *chosen]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | hashes, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    collected = [line for line in done.stdout.splitlines() if "::" in line]
    assert collected == [item.nodeid for item in request.session.items]


def test_workers_divide_the_cores(monkeypatch):
    """The process that starts them reads conftest.py first, and they inherit its environment."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # for it to be unset afterwards, if it was before
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    for workers, threads in ((None, None), ("2", "3"), ("8", "1")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)
        if workers is not None:
            monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", workers)
        runpy.run_path(str(Path(__file__).with_name("conftest.py")))
        assert os.environ.get("OMP_NUM_THREADS") == threads
