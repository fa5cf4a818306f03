"""Where results go."""

from pathlib import Path

import pytest

from unrender import InputError
from unrender.runs.folder import start_run


def test_new_and_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/deep"):
        assert start_run("fit-mesh", "cup", tmp_path / name, {}) == tmp_path / name
        assert (tmp_path / name / "config.json").is_file()


def test_folders_that_are_not_empty_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"--output .*: the folder is not empty"):
        start_run("fit-mesh", "cup", tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_runs_within_one_second_have_different_folders(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda _: "now")
    folders = [str(start_run("fit-mesh", "cup", None, {})) for _ in range(3)]
    assert folders == [f"runs/fit-mesh/cup-now{end}" for end in ("", "-2", "-3")]
