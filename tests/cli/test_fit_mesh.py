"""unrender fit-mesh, as a user calls it."""

import json
import re
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from unrender.cli import fit_mesh as cli_fit_mesh
from unrender.cli.main import COMMANDS, main
from unrender.geometry.points import PointCloud
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.shapes import torus
from unrender.io import load_mesh, save_cloud, save_mesh
from unrender.reports import mesh_report

FAST = ["--edge-length", "0.3", "--steps", "6"]


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    points = sample_points_from_mesh(torus(), 1500, generator=torch.Generator().manual_seed(0)).points
    save_cloud(PointCloud(points), tmp_path / "scan.ply")
    return tmp_path / "scan.ply"


def test_run_folder_contents(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = scan.parent / "run"
    save_mesh(torus(), scan.parent / "truth.ply")
    truth = ["--reference", str(scan.parent / "truth.ply")]
    assert main(["fit-mesh", str(scan), "--output", str(folder), "--holdout", "0.1", *truth, *FAST]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "curves.json",
        "mesh.ply",
        "metrics.json",
        "report.html",
    ]
    metrics = json.loads((folder / "metrics.json").read_text())
    names = (
        "holdout_to_mesh_mean cloud_to_mesh_mean cloud_to_mesh_p95 diagonal f_score f_score_distance watertight genus "
        "num_vertices num_faces steps seconds mesh_to_reference_mean reference_to_mesh_mean observed_fraction "
        "num_outliers smoothness"
    )
    assert set(names.split()) <= set(metrics)
    assert metrics["watertight"] is True
    assert metrics["genus"] == 1
    assert metrics["steps"] == 6
    assert metrics["holdout_to_mesh_mean"] < 0.02 * metrics["diagonal"]
    mesh = load_mesh(folder / "mesh.ply")
    assert len(mesh.vertices) == metrics["num_vertices"]
    config = json.loads((folder / "config.json").read_text())
    assert config["config"]["holdout"] == 0.1
    assert capsys.readouterr().out.strip().endswith(str(folder / "report.html"))
    html = (folder / "report.html").read_text()
    assert not re.search(r"(src|href)=[\"']?https?:", html)
    assert html.count("<figure>") == 5
    assert "unrender.FitMesh(edge_length=0.3, steps=6, holdout=0.1)" in html
    assert html.count("data:image/png") == 5 * (
        mesh_report.NUM_VIEWS + 1
    )  # the first is also shown without scripts


@pytest.mark.parametrize("suffix", ["obj", "stl", "glb"])
def test_mesh_formats(scan: Path, suffix: str) -> None:
    folder = scan.parent / "run"
    arguments = ["--edge-length", "0.5", "--steps", "0", "--mesh-format", suffix]
    assert main(["fit-mesh", str(scan), "--output", str(folder), *arguments]) == 0
    assert len(load_mesh(folder / f"mesh.{suffix}").faces) > 100


def test_depth_image_as_input(tmp_path: Path) -> None:
    y, x = np.mgrid[-1:1:60j, -1:1:60j]
    depth = np.where(x**2 + y**2 < 0.6, 2 - np.sqrt(np.clip(1 - x**2 - y**2, 0, None)), 0)
    np.save(tmp_path / "depth.npy", depth.astype(np.float32))
    arguments = ["--intrinsics", "60", "60", "30", "30", "--output", str(tmp_path / "run"), "--steps", "3"]
    assert main(["fit-mesh", str(tmp_path / "depth.npy"), *arguments]) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["watertight"] is True


def test_ctrl_c_keeps_what_is_there(scan: Path, monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    fit = cli_fit_mesh.fit_mesh

    def interrupted(*arguments: object, **named: object):
        for step in fit(*arguments, **named):
            yield step
            if step.index == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(cli_fit_mesh, "fit_mesh", interrupted)
    folder = scan.parent / "run"
    assert main(["fit-mesh", str(scan), "--output", str(folder), *FAST]) == 130
    assert json.loads((folder / "metrics.json").read_text())["steps"] == 2
    assert len(load_mesh(folder / "mesh.ply").faces) > 40


def test_a_stopped_fit_is_resumed_with_its_settings(
    scan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = cli_fit_mesh.fit_mesh
    given = ["fit-mesh", str(scan), "--edge-length", "0.3", "--mesh-format", "obj"]
    folders = [scan.parent / name for name in ("whole", "stopped")]
    assert main([*given, "--output", str(folders[0])]) == 0
    assert "resume with" not in capsys.readouterr().out

    def terminated(*arguments: object, **named: object):
        for step in fit(*arguments, **named):
            assert (folders[1] / "mesh.obj").is_file() == (step.index > 0)
            yield step
            if step.index == 8:
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(cli_fit_mesh, "fit_mesh", terminated)
    assert main([*given, "--output", str(folders[1])]) == 143
    (line,) = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("resume with: unrender")
    ]
    monkeypatch.setattr(cli_fit_mesh, "fit_mesh", fit)
    assert shlex.split(line)[3:] == ["fit-mesh", "--resume", str(folders[1])]
    monkeypatch.chdir(folders[0])  # the run knows where its cloud is
    assert main(shlex.split(line)[3:]) == 0
    meshes = [(folder / "mesh.obj").read_bytes() for folder in folders]
    assert meshes[0] == meshes[1]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.xyz", "", "the file is empty"),
        ("one.xyz", "1 2 3\n", "at least 10 points, got 1"),
        ("message.xyz", "1 2 3\n4 five 6\n", "line 2"),
        ("scan.png", "x", "--intrinsics fx fy cx cy"),
        ("scan.docx", "x", "suffix"),
    ],
)
def test_invalid_input_fails_with_one_line_and_no_output(
    tmp_path: Path, name: str, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / name, text)
    assert main(["fit-mesh", str(tmp_path / name), "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_missing_input_and_output_that_is_a_file(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit-mesh", str(scan.parent / "nothing.ply")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["fit-mesh", str(scan), "--output", str(scan)]) == 2
    assert "is a file" in capsys.readouterr().err


def test_overview_and_unknown_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"unrender {name}" in out for name in COMMANDS)
    assert len(out.splitlines()) <= 24
    assert main(["fly"]) == 2
    assert "unknown command 'fly'" in capsys.readouterr().err


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "matrix product" in capsys.readouterr().out
