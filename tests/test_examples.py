"""Every example runs, warns of nothing, and leaves its results in the folder it is given."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(example: Path, tmp_path: Path):
    command = [sys.executable, "-W", "error", str(example), str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert any((tmp_path / "results").glob("*.png"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_fits_on_a_screen_and_hangs_in_the_gallery(example: Path):
    assert len(example.read_text("utf-8").splitlines()) <= 60
    assert f'--8<-- "examples/{example.name}"' in (ROOT / "docs/gallery.md").read_text("utf-8")


def test_there_are_examples():
    assert [path.stem[:3] for path in EXAMPLES] == [f"{n:02d}_" for n in range(1, len(EXAMPLES) + 1)]
    assert EXAMPLES
