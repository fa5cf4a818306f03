"""Runs on disk, and runs of another format."""

import json
from pathlib import Path

import pytest

from unrender import InputError
from unrender.cli.main import main
from unrender.runs.folder import RUN_FORMAT, start_run
from unrender.runs.saved_run import read_config


def test_config_round_trip(tmp_path: Path) -> None:
    folder = start_run("fit-mesh", "cup", tmp_path / "run", {"cloud": tmp_path / "cup.ply", "up": "y"})
    config = read_config(folder)
    assert (config["format"], config["task"]) == (RUN_FORMAT, "fit-mesh")
    assert (config["cloud"], config["up"]) == (str(tmp_path / "cup.ply"), "y")


@pytest.mark.parametrize("header", [{}, {"format": 1}, {"format": RUN_FORMAT + 1}])
def test_runs_of_another_format_are_refused(tmp_path: Path, header, capsys) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"task": "fit-nerf", "unrender": "0.1.0"} | header))
    found = header.get("format", 1)
    message = (
        f"{tmp_path}: run format {found}, but this version reads format {RUN_FORMAT}; "
        "run `unrender fit-nerf` again"
    )
    with pytest.raises(InputError) as error:
        read_config(tmp_path)
    assert str(error.value) == message
    for command in ("render", "eval", "depth", "export", "view"):
        assert main([command, str(tmp_path)]) == 2
        assert capsys.readouterr().err == f"unrender {command}: {message}\n"
