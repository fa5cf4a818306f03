"""Runs on disk, and runs of another format."""

import json
from pathlib import Path

import pytest

from ball_field import Ball
from unrender import Camera, InputError
from unrender.cli.main import main
from unrender.data.frames import Frame
from unrender.runs.folder import RUN_FORMAT, start_run
from unrender.runs.saved_run import Run, read_config, require_same_run
from unrender.workers import Workers


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


def test_workers_compare_the_field_and_the_cameras(tmp_path: Path) -> None:
    found = []

    class Other(Workers):
        def require_same(self, what: str, value: str) -> None:
            found.append(f"{what} {value}")

    path = tmp_path / "field.safetensors"
    cameras = [Camera.look_at((0.0, y, 4.0), height=8, width=8) for y in (0.0, 1.0)]
    frames = [Frame(f"{i}.png", camera, tmp_path / f"{i}.png") for i, camera in enumerate(cameras)]
    run = Run(tmp_path, Ball(), path, None, None, None)
    for data, views in ((b"1", frames), (b"1", frames), (b"2", frames), (b"1", frames[1:])):
        path.write_bytes(data)
        require_same_run(run, views, Other(1, 2))
    assert found[0].startswith("the run or its cameras ")
    assert [value == found[0] for value in found] == [True, True, False, False]
