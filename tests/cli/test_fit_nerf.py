"""unrender fit-nerf: the folder of a run during training, after it, and when it is resumed."""

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

import unrender
from ball_field import Ball
from scene_files import cameras, write_nerfstudio
from unrender import InputError
from unrender.cli import fit_nerf as cli_fit_nerf
from unrender.cli.main import main
from unrender.io.checkpoints import load_tensors, save_tensors
from unrender.io.files import DiskFullError
from unrender.reports import live_report
from unrender.runs.progress import RecordedSteps
from unrender.runs.resume import resumed_config
from unrender.tasks.nerf.config import FitNerf
from unrender.training.step import TrainingStep

STEPS = ["--steps", "6"]
FEW = [*STEPS, "--no-video", "--views", "1"]


class FakeTrainer:
    """Stands in for the task: a ball that grows with every step, and is remembered in the checkpoint."""

    def __init__(self) -> None:
        self.stops_at: int | None = None
        self.configs: list[FitNerf] = []
        self.saw: list[str] = []
        """How the report began at each step."""

    def __call__(self, scene, config, *, checkpoints=None, resume=None):
        self.configs.append(config)
        self.exposures = torch.ones(len(scene.split("train")), 3)
        first = 0
        if resume is not None:
            tensors, description = load_tensors(resume / "checkpoint.safetensors")
            first = int(tensors["index"])
            if description["model"] != config.model:
                raise InputError(f"model was {description['model']!r}, is {config.model!r}")
        return self._steps(first, config, checkpoints)

    def _steps(self, first, config, folder):
        index = first
        try:
            for index in range(first + 1, config.steps + 1):
                losses = {"color": 0.1 / index, "psnr": 10.0 + index, "trivial": 0.2}
                unseen = 9.0 + index if index % 2 else None
                field = Ball(0.1 * index)
                yield TrainingStep(
                    index, config.steps, losses, 1000 * index, 0.5 * index, field, unseen, self.exposures
                )
                report = folder / "report.html"
                self.saw.append(report.read_text() if report.is_file() else "")
                if index == self.stops_at:
                    signal.raise_signal(signal.SIGINT)
        finally:
            state = {"index": torch.tensor(index)}
            description = {"model": config.model, "numbers": {"index": index}}
            save_tensors(state, description, folder / "checkpoint.safetensors")


@pytest.fixture
def trainer(monkeypatch) -> FakeTrainer:
    double = FakeTrainer()
    monkeypatch.setattr(cli_fit_nerf, "fit_nerf", double)
    monkeypatch.setattr("unrender.reports.fit_report.save_field", lambda field, path: path.touch())
    monkeypatch.setattr("unrender.reports.field_report.NUM_FRAMES", 3)
    return double


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    folder = tmp_path / "cup"
    folder.mkdir()
    write_nerfstudio(folder, cameras(9), channels=4)
    return folder


def test_a_run_leaves_the_field_its_figures_and_a_report(trainer, scene, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["fit-nerf", str(scene), *STEPS, "--seed", "3", "--output", str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    assert names >= {
        "config.json", "cameras.json", "metrics.json", "curves.json", "report.html", "field.safetensors", "test-views",
        "video.mp4", "checkpoint.safetensors",
    }  # fmt: skip
    config = json.loads((out / "config.json").read_text())
    assert (config["task"], config["config"]["seed"]) == ("fit-nerf", 3)
    assert (config["test_views"], config["background"]) == (["images/000.png", "images/008.png"], [1, 1, 1])
    assert Path(config["scene"]) == scene.resolve()
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["steps"], metrics["seconds"], metrics["training_psnr"]) == (6, 3.0, 16.0)
    assert metrics["num_evaluated_views"] == 2
    assert {"psnr", "ssim", "psnr/images/008.png", "peak_memory_mib"} <= metrics.keys()
    exposures = json.loads((out / "exposures.json").read_text())
    assert exposures["images/001.png"] == [1, 1, 1]
    assert not exposures.keys() & set(config["test_views"])
    report = (out / "report.html").read_text()
    assert "unrender.fit_nerf(scene, unrender.FitNerf(steps=6, seed=3))" in report
    assert "held-out MSE" in report
    assert "http-equiv" not in report
    said = capsys.readouterr().out
    assert "resume with" not in said
    assert said.strip().endswith("report.html")


def test_fewer_views_and_no_video(trainer, scene, tmp_path) -> None:
    out = tmp_path / "out"
    given = [*STEPS, "--views", "1", "--no-video", "--no-mesh", "--output", str(out)]
    assert main(["fit-nerf", str(scene), *given]) == 0
    assert [path.name for path in (out / "test-views").iterdir()] == ["000.png"]
    assert not (out / "video.mp4").exists()


def test_a_view_is_shown_during_training(trainer, scene, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(live_report, "SECONDS_BETWEEN_UPDATES", 0.0)
    monkeypatch.setattr(live_report, "MAX_TIME_FRACTION", 1e9)
    assert main(["fit-nerf", str(scene), *FEW, "--output", str(tmp_path / "out")]) == 0
    assert len(set(trainer.saw)) == 6  # another one each time
    second = trainer.saw[1]
    assert "images/000.png: rendered" in second
    assert "12.00 dB  held out 10.00 dB" in second
    assert 'http-equiv="refresh"' in second


def test_a_full_disk_does_not_stop_the_work(trainer, scene, tmp_path, monkeypatch, caplog) -> None:
    def full(*given, **named):
        raise unrender.FileAccessError("the disk is full")

    monkeypatch.setattr(live_report, "SECONDS_BETWEEN_UPDATES", 0.0)
    monkeypatch.setattr(live_report, "write_report", full)
    assert main(["fit-nerf", str(scene), *FEW, "--output", str(tmp_path / "out")]) == 0
    assert "step 1: the report was not updated: the disk is full" in caplog.text


def test_ctrl_c_keeps_what_is_there_and_says_how_to_go_on(trainer, scene, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    trainer.stops_at = 2
    assert main(["fit-nerf", str(scene), "--model", "tutorial", *FEW, "--output", str(out)]) == 130
    assert json.loads((out / "metrics.json").read_text())["steps"] == 3  # the step at work was ended
    line = next(line for line in capsys.readouterr().out.splitlines() if "resume with" in line)
    assert line == f"resume with: unrender fit-nerf --resume {out}"
    trainer.stops_at = None
    assert main(["fit-nerf", "--resume", str(out), "--no-video"]) == 0
    assert trainer.configs[-1] == FitNerf(model="tutorial", steps=6)  # as the run was begun
    assert json.loads((out / "metrics.json").read_text())["steps"] == 6


def test_a_moved_scene_is_given_when_resuming(trainer, scene, tmp_path, capsys) -> None:
    out, moved = tmp_path / "out", tmp_path / "moved"
    trainer.stops_at = 2
    assert main(["fit-nerf", str(scene), *FEW, "--output", str(out)]) == 130
    trainer.stops_at = None
    scene.rename(moved)
    assert main(["fit-nerf", "--resume", str(out)]) == 2
    expected = f"the scene of {out} does not exist; give its new path: unrender fit-nerf SCENE --resume {out}"
    assert expected in capsys.readouterr().err
    assert main(["fit-nerf", str(moved), "--resume", str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["scene"] == str(moved)


def test_more_can_be_asked_for_when_resuming(trainer, scene, tmp_path) -> None:
    out = tmp_path / "out"
    assert main(["fit-nerf", str(scene), *FEW, "--output", str(out)]) == 0
    assert main(["fit-nerf", str(scene), f"--resume={out}", "--steps", "8", "--no-video"]) == 0
    assert json.loads((out / "metrics.json").read_text())["steps"] == 8
    assert json.loads((out / "config.json").read_text())["config"]["steps"] == 8
    begun, minutes = FitNerf(steps=8), FitNerf(steps=8, minutes=2.0)
    assert resumed_config(out, "fit-nerf", begun, None) == begun
    assert resumed_config(out, "fit-nerf", minutes, None) == FitNerf(minutes=2.0)


def test_event_files_for_tensorboard(trainer, scene, tmp_path, monkeypatch) -> None:
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr(live_report, "SECONDS_BETWEEN_UPDATES", 0.0)
    monkeypatch.setattr(live_report, "MAX_TIME_FRACTION", 1e9)
    out = tmp_path / "out"
    given = [*FEW, "--tensorboard", "--output", str(out)]
    assert main(["fit-nerf", str(scene), *given]) == 0
    events = loading.EventAccumulator(str(out / "tensorboard")).Reload()
    values = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert values["training/psnr"] == [(i, 10.0 + i) for i in range(1, 7)]
    assert values["held_out/psnr"] == [(i, 9.0 + i) for i in (1, 3, 5)]
    assert values["samples"][-1] == (6, 6000)
    assert events.Tags()["images"] == ["held_out/view"]


def test_tensorboard_that_is_not_there_is_named(trainer, scene, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main(["fit-nerf", str(scene), "--tensorboard", "--output", str(tmp_path / "out")]) == 2
    assert "pip install 'unrender[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("what", "options", "words"),
    [
        ("nothing", [], "not a run: no config.json"),
        ("another task", [], "a run of fit-volume; use `unrender fit-volume`"),
        ("no checkpoint", [], "no checkpoint.safetensors: it stopped before the first"),
        ("half a checkpoint", [], "damaged safetensors file"),
        ("another version", [], "written by unrender 9.9, this is"),
        ("another version", [], "their options differ: warp"),
        ("no settings", [], "no settings in its config.json"),
        ("all", ["--model", "hash"], "model was 'tutorial', is 'hash'"),
        ("all", ["--output", "other"], "a resumed run continues in"),
        ("all", ["--views", "0"], "--views 0: must be at least 1"),
    ],
)
def test_what_cannot_be_resumed_is_named(trainer, scene, tmp_path, capsys, what, options, words) -> None:
    out = tmp_path / "out"
    given = ["--model", "tutorial", *FEW, "--output", str(out)]
    assert main(["fit-nerf", str(scene), *given]) == 0
    config, checkpoint = out / "config.json", out / "checkpoint.safetensors"
    written = json.loads(config.read_text())
    if what == "nothing":
        config.unlink()
    elif what == "another task":
        config.write_text(json.dumps(written | {"task": "fit-volume"}))
    elif what == "no checkpoint":
        checkpoint.unlink()
    elif what == "half a checkpoint":
        checkpoint.write_bytes(checkpoint.read_bytes()[:20])
    elif what == "another version":
        settings = written["config"] | {"warp": 1}
        config.write_text(json.dumps(written | {"unrender": "9.9", "config": settings}))
    elif what == "no settings":
        config.write_text(json.dumps(written | {"config": None}))
    before = {path.name for path in out.iterdir()}
    assert main(["fit-nerf", str(scene), "--resume", str(out), *options]) == 2
    assert words in capsys.readouterr().err
    assert {path.name for path in out.iterdir()} == before


def test_no_time_for_a_step(trainer, scene, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["fit-nerf", str(scene), *FEW, "--output", str(out)]) == 0
    assert main(["fit-nerf", str(scene), "--resume", str(out)]) == 2
    assert "the run is already complete; give more --steps or --minutes" in capsys.readouterr().err


def test_a_folder_in_use_is_refused(trainer, scene, tmp_path, capsys) -> None:
    assert main(["fit-nerf", str(scene), "--output", str(scene)]) == 2
    assert "the folder is not empty" in capsys.readouterr().err


def test_a_disk_that_is_full_at_the_end_keeps_the_checkpoint(
    trainer, scene, tmp_path, capsys, monkeypatch
) -> None:
    def full(field: object, path: Path) -> None:
        raise DiskFullError(f"{path}: cannot be written: the disk is full")

    monkeypatch.setattr("unrender.reports.fit_report.save_field", full)
    out = tmp_path / "out"
    assert main(["fit-nerf", str(scene), *FEW, "--output", str(out)]) == 1
    said = capsys.readouterr().err
    assert "field.safetensors: cannot be written: the disk is full" in said
    assert f"save it with: unrender fit-nerf --resume {out}" in said
    assert (out / "checkpoint.safetensors").is_file()


def test_a_folder_that_disappears_during_training_is_created_again(
    trainer, scene, tmp_path, monkeypatch
) -> None:
    out = tmp_path / "out"
    finish = RecordedSteps.close

    def close(self) -> None:
        finish(self)
        shutil.rmtree(out)

    monkeypatch.setattr(RecordedSteps, "close", close)
    assert main(["fit-nerf", str(scene), *FEW, "--no-video", "--output", str(out)]) == 0
    assert {"config.json", "cameras.json", "field.safetensors", "report.html"} <= {
        p.name for p in out.iterdir()
    }
