"""unrender fit-volume: a folder with everything in it."""

import json
from pathlib import Path

import pytest
import torch

import unrender
from unrender.cli.main import main


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    unrender.save_demo_scene(folder, size=32, num_train=10, num_test=2)
    return folder


def test_a_run_leaves_the_volume_its_figures_and_a_report(scene: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "run"
    settings = ["--resolution", "32", "--steps", "120", "--rays", "4096"]
    assert main(["fit-volume", str(scene), "--output", str(folder), *settings]) == 0
    found = {path.name for path in folder.iterdir()}
    assert found >= {
        "config.json", "metrics.json", "curves.json", "report.html", "volume.safetensors", "test-views",
        "video.mp4",
    }  # fmt: skip
    assert len(list((folder / "test-views").glob("*.png"))) == 2
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["psnr"] > 15
    assert metrics["num_evaluated_views"] == 2
    assert metrics["steps"] == 120
    assert {"ssim", "seconds", "num_voxels", "peak_memory_mib", "psnr/images/test_010.png"} <= set(metrics)
    frame = unrender.load_scene(scene).split("test")[0]
    again = unrender.load_field(folder / "volume.safetensors").render(frame.camera, torch.ones(3))
    saved = unrender.load_image(folder / "test-views" / "test_010.png")
    assert float((again.color - saved).abs().max()) < 0.003
    report = (folder / "report.html").read_text()
    assert 'src="http' not in report
    assert "--resolution 32" in report
    assert capsys.readouterr().out.strip().endswith("report.html")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no such file or folder"),
        (["SCENE", "--resolution", "3"], "--resolution should be 16 to 1024"),
        (["SCENE", "--minutes", "0"], "--minutes should be above 0"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(scene, tmp_path, capsys, arguments, words) -> None:
    given = [str(scene) if argument == "SCENE" else argument for argument in arguments]
    assert main(["fit-volume", *given, "--output", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_can_be_watched(scene: Path, tmp_path: Path, caplog) -> None:
    settings = ["--resolution", "16", "--steps", "3", "--rays", "256", "--no-video", "--no-mesh", "--viewer"]
    caplog.set_level("INFO", "unrender")
    assert main(["fit-volume", str(scene), "--output", str(tmp_path / "run"), *settings]) == 0
    assert "viewer running at http://localhost:" in caplog.text
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 3


def test_a_stopped_run_is_resumed_with_its_own_settings(scene: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "run"
    settings = ["--resolution", "16", "--rays", "256", "--no-video", "--no-mesh", "--views", "all"]
    settings += ["--depth-scale", "0.002"]
    assert main(["fit-volume", str(scene), "--output", str(folder), *settings, "--steps", "4"]) == 0
    assert main(["fit-volume", "--resume", str(folder), "--steps", "6"]) == 0
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["steps"], metrics["num_evaluated_views"]) == (6, 2)
    config = json.loads((folder / "config.json").read_text())
    assert (config["config"]["resolution"], config["config"]["rays"]) == (16, 256)
    assert config["evaluation"] == {"views": "all", "video": False, "mesh": False}
    assert config["depth_scale"] == 0.002
    assert main(["fit-nerf", str(scene), "--resume", str(folder)]) == 2
    assert "a run of fit-volume; use `unrender fit-volume`" in capsys.readouterr().err
