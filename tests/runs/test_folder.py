"""Where results go."""

from pathlib import Path

import pytest

from unrender import InputError
from unrender.runs.folder import start_run
from unrender.workers import Workers


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


def test_a_run_that_continues_deletes_what_a_killed_one_left(tmp_path: Path) -> None:
    folder = start_run("depth", "cup", tmp_path / "run", {})
    left, kept = folder / "depth/.0123456789abcdef.part", folder / "depth/a"
    for view in (left, kept):
        view.mkdir(parents=True)
        (view / "median_z.npy").write_bytes(b"")
    assert start_run("depth", "cup", folder, {}) == folder
    assert [path.name for path in (folder / "depth").iterdir()] == ["a"]
    assert list(kept.iterdir()) == [kept / "median_z.npy"]


def test_a_worker_that_comes_late_follows_the_first_one(tmp_path: Path) -> None:
    """It finds the folder of a run that is not finished, as if that were to be continued."""
    folder, settings = tmp_path / "run", {"views": 3}
    assert start_run("depth", "cup", folder, settings) == folder
    calls = []

    class Late(Workers):
        def require_same(self, what: str, value: str) -> None:
            calls.append((what, value))

        def of_first(self, value: object) -> object:
            calls.append(value)
            return folder

    assert start_run("depth", "cup", folder, settings, Late(3, 4)) == folder
    start_run("depth", "cup", folder, settings | {"views": 4}, Late(3, 4))
    (what, same), value, (_, other), _ = calls
    assert (what, value) == ("the version or the settings", None)
    assert same != other
