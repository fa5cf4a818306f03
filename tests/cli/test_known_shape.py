"""unrender fit-mesh with a known shape."""

import json
from pathlib import Path

import pytest
import torch

from known_shapes import EXPRESSION, lopsided_model, scan, true_mesh
from unrender import Mesh, PointCloud, load_mesh, save_cloud, save_linear_model, save_mesh
from unrender.cli.main import main
from unrender.io.ply import read_tables
from unrender.reports import shape_fit_report
from unrender.tasks.mesh import align_similarity


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("known")
    save_linear_model(lopsided_model(), folder / "model.npz")
    save_mesh(true_mesh(), folder / "truth.ply")
    save_cloud(scan(true_mesh(), 1500), folder / "scan.ply")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_fit_report, "NUM_VIEWS", 1)
    monkeypatch.setattr(align_similarity, "SCALE_FACTORS", (0.9,))


def run(files: Path, *arguments: str, cloud: str = "scan.ply", output: str = "run") -> int:
    return main(["fit-mesh", str(files / cloud), "--output", str(files / output), *arguments])


def test_a_linear_model(files: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--linear-model", str(files / "model.npz"), "--reference", str(files / "truth.ply")]
    assert run(files, *arguments, output="linear") == 0
    folder = files / "linear"
    assert capsys.readouterr().out.strip().endswith(str(folder / "report.html"))
    found = json.loads((folder / "coefficients.json").read_text())
    assert found["status"] == "aligned"
    assert list(found["expression"]) == ["up", "out"]
    assert abs(found["expression"]["up"] - float(EXPRESSION[0])) < 0.15
    assert 0 < found["expression_std"]["up"] < 0.3
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["mesh_to_reference_mean"] < 0.02 * metrics["diagonal"]
    tables, _ = read_tables((folder / "mesh.ply").read_bytes())
    observed = json.loads((folder / "support.json").read_text())["observed"]
    assert tables["vertex"]["observed"].values.tolist() == observed
    html = (folder / "report.html").read_text()
    assert "unrender.fit_linear_model(" in html
    assert html.count("<figure>") == 4
    assert main(["fit-mesh", str(files / "scan.ply"), *arguments, "--output", str(folder)]) == 2


def test_a_folder_is_a_sequence(files: Path, capsys: pytest.CaptureFixture[str]):
    (files / "frames").mkdir()
    for number in range(2):
        save_cloud(scan(true_mesh(EXPRESSION * number), 1000), files / "frames" / f"{number}.ply")
    arguments = ["--linear-model", str(files / "model.npz"), "--mesh-format", "obj"]
    assert run(files, *arguments, cloud="frames", output="sequence") == 0
    assert "2 of 2 frames aligned" in capsys.readouterr().out
    found = json.loads((files / "sequence" / "coefficients.json").read_text())
    assert [frame["cloud"] for frame in found["frames"]] == ["0.ply", "1.ply"]
    assert len(found["identity"]) == 2
    assert "identity" not in found["frames"][0]
    metrics = json.loads((files / "sequence" / "metrics.json").read_text())
    assert (metrics["aligned"], metrics["ambiguous"], metrics["unaligned"]) == (2, 0, 0)
    assert "import pathlib" in (files / "sequence" / "report.html").read_text()
    assert len(load_mesh(files / "sequence" / "meshes" / "1.obj").vertices) == 642


def test_a_cloud_of_something_else_has_exit_status_3(files: Path, capsys: pytest.CaptureFixture[str]):
    spread = torch.rand(300, 3, generator=torch.Generator().manual_seed(0))
    save_cloud(PointCloud(spread), files / "other.ply")
    status = run(files, "--linear-model", str(files / "model.npz"), cloud="other.ply", output="other")
    assert status == 3
    assert "unaligned" in capsys.readouterr().err
    assert json.loads((files / "other" / "metrics.json").read_text())["status"] == "unaligned"


def test_a_template(files: Path, capsys: pytest.CaptureFixture[str]):
    ids = [0, 5, 40, 300]
    rows = zip(ids, true_mesh().vertices[ids].tolist(), strict=True)
    (files / "marks.txt").write_text("".join(f"{i} {x} {y} {z}\n" for i, (x, y, z) in rows))
    model = lopsided_model()
    save_mesh(Mesh(model.mean, model.faces), files / "template.obj")
    arguments = ["--template", str(files / "template.obj"), "--landmarks", str(files / "marks.txt")]
    assert run(files, *arguments, output="template") == 0
    assert "aligned" in capsys.readouterr().out
    folder = files / "template"
    assert load_mesh(folder / "mesh.ply").faces.shape == model.faces.shape
    found = json.loads((folder / "support.json").read_text())
    assert found["status"] == "aligned"
    assert len(found["observed"]) == len(model.mean)
    assert json.loads((folder / "metrics.json").read_text())["strain"] > 0
    assert "unrender.fit_template(" in (folder / "report.html").read_text()


def test_templates_of_a_folder_are_independent(files: Path, capsys: pytest.CaptureFixture[str]):
    (files / "clouds").mkdir()
    save_cloud(scan(true_mesh(), 600), files / "clouds" / "good.ply")
    (files / "clouds" / "bad.ply").write_text("ply")
    arguments = ["--template", str(files / "truth.ply"), "--scale", "1"]
    assert run(files, *arguments, cloud="clouds", output="batch") == 1
    summary = (files / "batch" / "summary.csv").read_text()
    assert "good,aligned" in summary
    assert "bad,error" in summary


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--linear-model", "MODEL", "--edge-length", "0.1"],
            "--edge-length does not apply to a known shape",
        ),
        (["--linear-model", "missing.npz"], "no such file"),
        (["--linear-model", "MODEL", "--template", "MODEL"], "not both"),
        (["--scale", "2"], "--scale needs a known shape"),
    ],
)
def test_options_that_do_not_fit(
    files: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert run(files, *(str(files / "model.npz") if a == "MODEL" else a for a in arguments), output="no") == 2
    assert message in capsys.readouterr().err
    assert not (files / "no").exists()
