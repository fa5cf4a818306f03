"""Every example runs, warns of nothing, and leaves its results in the folder it is given."""

import re
import runpy
import sys
from pathlib import Path

import pytest

import unrender

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(example: Path, tmp_path: Path, monkeypatch, capsys):
    """In this process, where warnings are errors: torch and the kernels are loaded once for all of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example), str(tmp_path / "results")])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.strip()
    assert any((tmp_path / "results").glob("*.png"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_needs_nothing_that_another_has_imported(example: Path):
    assert set(re.findall(r"\bunrender\.(\w+)", example.read_text("utf-8"))) <= set(unrender.__all__)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_fits_on_a_screen_and_hangs_in_the_gallery(example: Path):
    assert len(example.read_text("utf-8").splitlines()) <= 60
    assert f'--8<-- "examples/{example.name}"' in (ROOT / "docs/gallery.md").read_text("utf-8")


def test_there_are_examples():
    assert [path.stem[:3] for path in EXAMPLES] == [f"{n:02d}_" for n in range(1, len(EXAMPLES) + 1)]
    assert EXAMPLES
