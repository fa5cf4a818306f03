"""unrender regions, and its files."""

import json
from pathlib import Path

import pytest

import unrender
from unrender.cli.main import main
from unrender.reports import regions_report


@pytest.fixture(autouse=True)
def two_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions_report, "NUM_VIEWS", 2)


def test_regions_of_a_mesh_and_of_a_cloud(tmp_path: Path, capsys) -> None:
    cube = unrender.cube()
    unrender.save_mesh(cube, tmp_path / "cube.ply")
    samples = unrender.sample_points_from_mesh(cube, 6000)
    cloud = unrender.PointCloud(samples.points, unrender.face_normals(cube)[samples.face_ids])
    unrender.save_cloud(cloud, tmp_path / "scan.xyz")
    for name in ("cube.ply", "scan.xyz"):
        out = tmp_path / f"{name}-run"
        options = ["--max-points", "6000", "--pairs", "10", "--output", str(out)]
        assert main(["regions", str(tmp_path / name), *options]) == 0
        assert capsys.readouterr().out.startswith("6 flat regions")
        found = json.loads((out / "regions.json").read_text())
        assert len(found["regions"]) == 6
        assert len(found["pairs"]) == 3
        side = float(cube.vertices.amax() - cube.vertices.amin())
        for region in found["regions"]:
            assert region["area"] == pytest.approx(side**2, rel=0.08)
            assert region["offset"] == pytest.approx(
                sum(a * b for a, b in zip(region["normal"], region["center"], strict=True))
            )
        report = (out / "report.html").read_text()
        assert "unrender.find_regions(surface, unrender.FindRegions(pairs=10.0, max_points=6000))" in report
        assert "<th>regions</th>" in report
    mesh = unrender.load_mesh(tmp_path / "cube.ply-run" / "regions.ply")
    assert mesh.vertex_colors is not None
    assert len(mesh.vertex_colors.unique(dim=0)) == 6
    colored = unrender.load_cloud(tmp_path / "scan.xyz-run" / "regions.ply")
    assert colored.colors is not None
    assert len(colored.points) == 6000


def test_nothing_flat_and_bad_input(tmp_path: Path, capsys) -> None:
    unrender.save_mesh(unrender.ico_sphere(2), tmp_path / "ball.stl")
    given = ["regions", str(tmp_path / "ball.stl"), "--max-points", "3000", "--max-deviation", "1e-4"]
    assert main([*given, "--output", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.startswith("No flat region")
    assert main(["regions", str(tmp_path / "photo.jpg")]) == 2
    assert "unsupported suffix '.jpg'; use one of" in capsys.readouterr().err
    assert main(["regions", str(tmp_path / "ball.stl"), "--pairs", "0"]) == 2
    assert "--pairs should be positive and finite" in capsys.readouterr().err
