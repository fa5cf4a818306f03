"""Commands whose output nobody can read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import pathlib, sys
from unrender.cli import main

def command(name, arguments):
    print("2048³ × → 3 \\udce9 é", flush=True)
    print("second", file=sys.stderr)
    pathlib.Path(RESULT).write_text("done")

main.run_command = command
sys.argv[1:] = ["doctor"]
raise SystemExit(main.main())
"""


def run(tmp_path: Path, redirect: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a shell."""
    code = f"RESULT = {str(tmp_path / 'result')!r}{CODE}"
    return subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {redirect}', sys.executable, code],
        env=os.environ | environment,
        capture_output=True,
        check=False,
    )


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize("redirect", ["<&- >&- 2>&-", "> /dev/full 2> /dev/full", "2>&1 | true"])
def test_output_without_a_reader_is_dropped(tmp_path: Path, redirect: str) -> None:
    done = run(tmp_path, f"{redirect}; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, (tmp_path / "result").read_text()) == (0, "done")
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


@pytest.mark.parametrize(
    ("encoding", "line"), [("ascii", r"2048^3 x -> 3 \udce9 \xe9"), ("utf-8", r"2048³ × → 3 \udce9 é")]
)
def test_a_terminal_without_unicode_gets_other_characters(tmp_path: Path, encoding: str, line: str) -> None:
    done = run(tmp_path, PYTHONIOENCODING=encoding)
    assert done.stdout.decode() == f"{line}\n"
    assert (done.returncode, done.stderr.splitlines()) == (0, [b"second"])
