import os
import subprocess
import sys

COLLECT = ["-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]


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
