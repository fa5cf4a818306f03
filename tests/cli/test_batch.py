"""fit-mesh and find-pose on folders, as a user calls them."""

import csv
import json
import signal
from pathlib import Path

import pytest
import torch

import launched
import unrender
from unrender.cli import fit_mesh as cli_fit_mesh
from unrender.cli.main import main
from unrender.errors import InputError
from unrender.geometry.points import PointCloud
from unrender.geometry.simplify import cluster_vertices
from unrender.runs import batch
from unrender.workers import Workers

COMMAND = """
import sys
from unrender.cli.main import main
from unrender.reports import mesh_report
mesh_report.NUM_VIEWS = 1
sys.exit(main())
"""
FAST = ["--edge-length", "0.5", "--steps", "2"]
FAST_POSE = ["--num-views", "50", "--num-starts", "4", "--resolution", "32", "--fov-degrees", "40"]


@pytest.fixture
def clouds(tmp_path: Path) -> Path:
    """Write two point clouds, a damaged one, and a file that is none."""
    folder = tmp_path / "clouds"
    folder.mkdir()
    ball = unrender.ico_sphere(2)
    for name, scale in {"a": 1.0, "c": 2.0}.items():
        points = unrender.sample_points_from_mesh(
            ball, 400, generator=torch.Generator().manual_seed(0)
        ).points
        unrender.save_cloud(PointCloud(scale * points), folder / f"{name}.ply")
    (folder / "b.ply").write_text("ply\nformat ascii 1.0\nelement vertex 3\n")
    (folder / "readme.txt").write_text("scans of balls")
    return folder


def rows(output: Path) -> dict[str, dict[str, str]]:
    with (output / "summary.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def times(output: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in output.glob("*/report.html")}


def test_a_folder_of_clouds_is_continued_after_a_failure(clouds, tmp_path, capsys) -> None:
    command = ["fit-mesh", str(clouds), "--output", str(tmp_path / "out"), *FAST]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert "3 of 3 files: 2 supported, 1 error" in out
    assert "b: " in out
    assert "b.ply" in err
    assert out.strip().endswith("summary.csv")
    table = rows(tmp_path / "out")
    assert list(table) == ["a", "b", "c"]
    assert table["a"]["status"] == table["c"]["status"] == "supported"
    metrics = json.loads((tmp_path / "out/c/metrics.json").read_text())
    assert float(table["c"]["cloud_to_mesh_mean"]) == metrics["cloud_to_mesh_mean"]
    assert float(table["c"]["seconds"]) == pytest.approx(metrics["seconds"], abs=1e-3)
    assert (table["a"]["genus"], table["a"]["message"]) == ("0", "")
    assert table["b"]["status"] == "error"
    assert "b.ply" in table["b"]["message"]
    assert unrender.load_mesh(tmp_path / "out/c/mesh.ply").vertices.abs().max() > 1.5

    before = times(tmp_path / "out")
    (clouds / "b.ply").write_bytes((clouds / "a.ply").read_bytes())
    assert main(command) == 0
    assert before.items() < times(tmp_path / "out").items()
    assert rows(tmp_path / "out")["b"]["status"] == "supported"

    assert main([*command, "--up", "z"]) == 2
    error = capsys.readouterr().err
    assert "the folder is not empty: it holds results of `unrender fit-mesh` with other settings" in error
    assert 'up is "y" there and "z" here; give a new folder, or the same settings to continue' in error


def test_workers_share_a_folder_of_clouds(clouds, tmp_path) -> None:
    command = ["fit-mesh", str(clouds), *FAST]
    assert main([*command, "--output", str(tmp_path / "alone")]) == 1
    workers = launched.fork(["-c", COMMAND, *command, "--output", str(tmp_path / "shared")], 2)
    (first, out, err), (second, silence, _) = launched.outputs(workers)
    assert (first, second, silence) == (1, 0, ""), err
    assert "3 of 3 files" in out
    expected, found = rows(tmp_path / "alone"), rows(tmp_path / "shared")
    for row in (*expected.values(), *found.values()):
        del row["seconds"]
    assert found == expected
    for name in ("a", "c"):
        one, other = (tmp_path / folder / name / "mesh.ply" for folder in ("alone", "shared"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.usefixtures("default_interrupts")
def test_an_interrupted_folder_ends_with_the_same_meshes(clouds, tmp_path, monkeypatch, capsys) -> None:
    (clouds / "b.ply").unlink()
    command = ["fit-mesh", str(clouds), "--edge-length", "0.5", "--steps", "8"]
    assert main([*command, "--output", str(tmp_path / "whole")]) == 0
    command += ["--output", str(tmp_path / "stopped")]
    fit, starts = cli_fit_mesh.fit_mesh, []

    def interrupted(*arguments: object, **named: object):
        starts.append(named["resume"])
        for step in fit(*arguments, **named):
            yield step
            if len(starts) == 2 and step.index == 5:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(cli_fit_mesh, "fit_mesh", interrupted)
    assert main(command) == 130
    assert "1 of 2 files: 1 supported" in capsys.readouterr().out
    assert list(rows(tmp_path / "stopped")) == ["a"]
    before = times(tmp_path / "stopped")
    assert main(command) == 0
    assert starts == [None, None, tmp_path / "stopped/c"]
    assert list(rows(tmp_path / "stopped")) == ["a", "c"]
    assert before.items() < times(tmp_path / "stopped").items()
    for name in ("a", "c"):
        one, other = (tmp_path / folder / name / "mesh.ply" for folder in ("whole", "stopped"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.usefixtures("default_interrupts")
def test_a_folder_stopped_within_its_first_file_has_a_table(clouds, tmp_path, monkeypatch, capsys) -> None:
    fit = cli_fit_mesh.fit_mesh

    def interrupted(*arguments: object, **named: object):
        for step in fit(*arguments, **named):
            if step.index == 0:
                signal.raise_signal(signal.SIGTERM)  # os.kill may reach another thread, and return first
            yield step

    monkeypatch.setattr(cli_fit_mesh, "fit_mesh", interrupted)
    assert main(["fit-mesh", str(clouds), "--output", str(tmp_path / "out"), *FAST]) == 143
    assert "0 of 3 files: none is complete" in capsys.readouterr().out
    assert rows(tmp_path / "out") == {}


def test_a_folder_of_photos_has_a_folder_of_masks(tmp_path, capsys) -> None:
    mesh = cluster_vertices(unrender.demo_object(), 12).to(torch.float32)
    unrender.save_mesh(mesh, tmp_path / "object.ply")
    camera = unrender.Camera.look_at([2.0, 1.2, 3.0], fov_degrees=40.0, height=48, width=48)
    photo = unrender.render_mesh(mesh, camera, background=None)
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("first", "second"):
        unrender.save_image(photo[..., :3].clamp(0, 1), tmp_path / f"photos/{name}.png")
    unrender.save_image(photo[..., 3], tmp_path / "masks/first.png")
    command = ["find-pose", str(tmp_path / "object.ply"), str(tmp_path / "photos"), *FAST_POSE]
    command += ["--mask", str(tmp_path / "masks"), "--output", str(tmp_path / "out")]
    assert main(command) == 1
    table = rows(tmp_path / "out")
    assert table["first"]["status"] in ("converged", "ambiguous")
    assert float(table["first"]["agreement"]) > 0.7
    assert table["second"]["status"] == "error"
    assert table["second"]["message"] == f"{tmp_path / 'masks'}: no file is named like second.png"
    report = (tmp_path / "out/first/report.html").read_text()
    assert "masks/first.png" in report
    assert "second: " in capsys.readouterr().out


def test_folders_without_input_and_options_that_do_not_apply(clouds, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    unrender.save_mesh(unrender.ico_sphere(1), tmp_path / "ball.ply")
    for arguments, message in (
        (["fit-mesh", str(tmp_path / "empty")], "empty: no point clouds"),
        (["find-pose", str(tmp_path / "ball.ply"), str(tmp_path / "empty")], "empty: no photos"),
        (["fit-mesh", str(clouds), "--viewer"], "--viewer does not apply to a folder"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(InputError, match=r"scan.ply: one file is a task for one process"):
        batch.refuse_workers(Path("scan.ply"), Workers(0, 2))


def test_files_of_one_stem_have_folders_of_their_own() -> None:
    assert batch._folder_names([Path("a.ply"), Path("b.ply")]) == ["a", "b"]
    assert batch._folder_names([Path("a.ply"), Path("a.xyz")]) == ["a.ply", "a.xyz"]
    assert batch._folder_names([Path("config.json.ply")]) == ["config.json.ply"]
