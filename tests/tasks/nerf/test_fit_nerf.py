"""Radiance fields from posed images: what comes out, and that nothing is lost on the way."""

import dataclasses
import logging
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import unrender
from unrender.data.scenes import Scene
from unrender.errors import FileFormatError, InputError, UnrenderError
from unrender.tasks.nerf import config as nerf_settings
from unrender.tasks.nerf import fit_nerf
from unrender.tasks.nerf import trainer as _nerf_learner
from unrender.tasks.nerf.config import FitNerf

SMALL = FitNerf(steps=60, samples=8192, table_log2=12)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return unrender.save_demo_scene(tmp_path_factory.mktemp("elephant"), size=40, num_train=12, num_test=3)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_nerf_learner, "CELLS", 32)
    monkeypatch.setattr(_nerf_learner, "STEPS_PER_SIDE", ((0.0, 48), (0.5, 96)))
    monkeypatch.setattr(_nerf_learner, "FINEST", 64)
    monkeypatch.setattr(_nerf_learner, "STEPS_IN_ALL_SPACE", ((0.0, 24), (0.5, 48)))
    monkeypatch.setattr(_nerf_learner, "STEPS_TO_PRUNE", 20)


def errors_of(steps) -> list[float]:
    return [step.losses["color"] for step in steps]


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


def test_views_that_were_not_learned_from_look_like_their_photos(scene: Scene) -> None:
    steps = list(fit_nerf.fit_nerf(scene, dataclasses.replace(SMALL, steps=250)))
    field = steps[-1].result
    assert sum(errors_of(steps[-20:])) < 0.2 * sum(errors_of(steps[:20]))
    values = []
    for frame in scene.split("test"):
        view = frame.load()
        photo = torch.lerp(torch.ones_like(view.image), view.image, view.alpha[..., None])
        values.append(unrender.psnr(field.render(frame.camera, torch.ones(3)).color, photo))
    assert sum(values) / len(values) > 22
    assert steps[-1].index == steps[-1].last_index == 250


@pytest.mark.parametrize("changes", [{"space": "everything"}, {"background": "white", "space": "box"}])
def test_other_spaces_and_backgrounds_are_learned_too(scene: Scene, changes) -> None:
    errors = errors_of(fit_nerf.fit_nerf(scene, dataclasses.replace(SMALL, steps=120, **changes)))
    assert sum(errors[-9:]) / 9 < 0.8 * sum(errors[:3]) / 3


@pytest.mark.parametrize("model", ["paper", "tutorial"])
def test_the_other_models_learn(scene: Scene, model, monkeypatch) -> None:
    monkeypatch.setattr(_nerf_learner, "RAYS_OF_PAPER", 24)
    batch = unrender.PixelSource(scene.split("train")).draw(24, 1)
    monkeypatch.setattr(unrender.PixelSource, "draw", lambda *_: batch)
    errors = errors_of(fit_nerf.fit_nerf(scene, FitNerf(model=model, steps=12, background="white")))
    assert all(math.isfinite(error) for error in errors)
    assert errors[-1] < errors[0]


def test_a_resumed_fit_has_the_numbers_of_one_that_never_stopped(scene: Scene, tmp_path: Path) -> None:
    *_, whole = fit_nerf.fit_nerf(scene, SMALL)
    first = fit_nerf.fit_nerf(scene, SMALL, checkpoints=tmp_path)
    for _ in range(37):
        next(first)
    first.close()
    rest = list(fit_nerf.fit_nerf(scene, SMALL, resume=tmp_path))
    assert rest[0].index == 38
    assert same(whole.result, rest[-1].result)
    assert rest[-1].losses == whole.losses


def test_streamed_scenes_resume_too(scene: Scene, tmp_path: Path) -> None:
    streaming = dataclasses.replace(SMALL, steps=30, memory_mib=0.06)
    *_, whole = fit_nerf.fit_nerf(scene, streaming)
    first = fit_nerf.fit_nerf(scene, streaming, checkpoints=tmp_path)
    for _ in range(13):
        next(first)
    first.close()
    *_, last = fit_nerf.fit_nerf(scene, streaming, resume=tmp_path)
    assert same(whole.result, last.result)


KILLED = """
import sys, unrender
from pathlib import Path
from unrender.tasks.nerf import fit_nerf
from unrender.tasks.nerf import trainer as _nerf_learner
from unrender.tasks.nerf.config import FitNerf
_nerf_learner.CELLS, _nerf_learner.STEPS_PER_SIDE = 32, ((0.0, 48), (0.5, 96))
_nerf_learner.FINEST, _nerf_learner.STEPS_TO_PRUNE = 64, 20
_nerf_learner.STEPS_IN_ALL_SPACE = ((0.0, 24), (0.5, 48))
fit_nerf.MINUTES_BETWEEN_CHECKPOINTS = 0.0
scene = unrender.load_scene(sys.argv[1])
small = FitNerf(steps=60, samples=8192, table_log2=12)
for step in fit_nerf.fit_nerf(scene, small, checkpoints=Path(sys.argv[2])):
    print(step.index, flush=True)
"""


def test_a_killed_fit_loses_nothing_that_was_saved(scene: Scene, tmp_path: Path) -> None:
    *_, whole = fit_nerf.fit_nerf(scene, SMALL)
    for moment in (0.0, 0.037):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(scene.folder), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        while process.stdout.readline().strip() != "5":
            assert process.poll() is None
        time.sleep(moment)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        rest = list(fit_nerf.fit_nerf(scene, SMALL, resume=tmp_path))
        assert rest[0].index > 4
        assert same(whole.result, rest[-1].result)


def test_a_resume_with_other_settings_says_which(scene: Scene, tmp_path: Path) -> None:
    fit = fit_nerf.fit_nerf(scene, SMALL, checkpoints=tmp_path)
    next(fit)
    fit.close()
    with pytest.raises(InputError, match="samples was 8192, is 4096; table_log2 was 12, is 13"):
        fit_nerf.fit_nerf(scene, dataclasses.replace(SMALL, samples=4096, table_log2=13), resume=tmp_path)
    fewer = dataclasses.replace(scene, frames=scene.frames[1:])
    wider = [dataclasses.replace(f, camera=f.camera.replace(focal=2 * f.camera.focal)) for f in scene.frames]
    for other in (fewer, dataclasses.replace(scene, frames=tuple(wider))):
        with pytest.raises(InputError, match="other frames or cameras"):
            fit_nerf.fit_nerf(other, SMALL, resume=tmp_path)
    whole = (tmp_path / nerf_settings.CHECKPOINT).read_bytes()
    (tmp_path / nerf_settings.CHECKPOINT).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="no whole safetensors file"):
        fit_nerf.fit_nerf(scene, SMALL, resume=tmp_path)
    with pytest.raises(InputError, match="no such file"):
        fit_nerf.fit_nerf(scene, SMALL, resume=tmp_path / "nowhere")


def test_a_full_disk_costs_no_checkpoint(scene: Scene, tmp_path: Path, monkeypatch, caplog) -> None:
    fit = fit_nerf.fit_nerf(scene, SMALL, checkpoints=tmp_path)
    next(fit)
    fit.close()
    before = (tmp_path / nerf_settings.CHECKPOINT).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    fit = fit_nerf.fit_nerf(scene, SMALL, checkpoints=tmp_path)
    next(fit)
    with caplog.at_level(logging.WARNING, "unrender"):
        fit.close()
    assert "the disk is full" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [nerf_settings.CHECKPOINT]
    assert (tmp_path / nerf_settings.CHECKPOINT).read_bytes() == before


def test_errors_that_are_not_numbers_lead_back_to_a_good_state(scene: Scene, monkeypatch, caplog) -> None:
    real, calls = _nerf_learner.Learner._losses, []

    def sometimes(self, batch):
        calls.append(1)
        color, total, trivial = real(self, batch)
        return color, total * (math.nan if len(calls) == 20 else 1), trivial

    monkeypatch.setattr(_nerf_learner.Learner, "_losses", sometimes)
    monkeypatch.setattr(fit_nerf, "STEPS_TO_GO_BACK", 10)
    with caplog.at_level(logging.WARNING, "unrender"):
        steps = list(fit_nerf.fit_nerf(scene, dataclasses.replace(SMALL, steps=25)))
    assert "step 20: the error is not finite: going back to step 10" in caplog.text
    assert all(math.isfinite(error) for error in errors_of(steps))
    assert bool(steps[-1].result.table.isfinite().all())


def test_going_back_restores_all_there_was(scene: Scene) -> None:
    learner = fit_nerf._new_learner(scene, SMALL, 0)
    begin = fit_nerf._copy(learner.state())
    for _ in range(3):
        learner.step(0.0)
    later = fit_nerf._copy(learner.state())
    for state in (begin, later, begin):
        learner.restore(*state)
        assert learner.index == state[1]["index"]
        tensors = learner.state()[0]
        assert tensors.keys() == state[0].keys()
        assert all(torch.equal(tensors[name], state[0][name]) for name in tensors)
        learner.step(0.0)  # must not write into what is remembered


def test_gradients_that_are_not_finite_lead_back_too(scene: Scene, monkeypatch) -> None:
    learner = fit_nerf._new_learner(scene, SMALL, 0)
    learner.field.table.register_hook(lambda gradient: gradient * math.nan)
    before = learner.field.table.detach().clone()
    assert not learner.step(0.0)
    assert learner.index == 0
    assert torch.equal(learner.field.table, before)


def test_a_fit_that_is_done_resumes_to_its_result(scene: Scene, tmp_path: Path) -> None:
    *_, last = fit_nerf.fit_nerf(scene, dataclasses.replace(SMALL, steps=7), checkpoints=tmp_path)
    again = list(fit_nerf.fit_nerf(scene, dataclasses.replace(SMALL, steps=7), resume=tmp_path))
    assert [step.index for step in again] == [7]
    assert same(again[0].result, last.result)
    assert again[0].losses == last.losses
    with pytest.raises(InputError, match="has taken 7 steps, more than 5"):
        fit_nerf.fit_nerf(scene, dataclasses.replace(SMALL, steps=5), resume=tmp_path)


def test_errors_that_stay_end_with_a_message(scene: Scene, monkeypatch) -> None:
    def never(self, batch):
        nothing = torch.tensor(math.nan)
        return nothing, nothing, 1.0

    monkeypatch.setattr(_nerf_learner.Learner, "_losses", never)
    with pytest.raises(UnrenderError, match="step 1: the error, or its gradient, is not finite"):
        list(fit_nerf.fit_nerf(scene, SMALL))


def test_a_collapse_is_noticed_and_the_fit_begun_again_once(scene: Scene, monkeypatch, caplog) -> None:
    monkeypatch.setattr(fit_nerf, "COLLAPSE_AT", 10)
    monkeypatch.setattr(fit_nerf, "COLLAPSED", 0.0)
    with (
        caplog.at_level(logging.WARNING, "unrender"),
        pytest.raises(UnrenderError, match="after 10 steps, with two seeds"),
    ):
        list(fit_nerf.fit_nerf(scene, SMALL))
    assert "beginning again with another seed" in caplog.text


def test_nothing_to_see_counts_as_collapse(scene: Scene) -> None:
    learner = fit_nerf._new_learner(scene, SMALL, 0)
    for parameter in learner.field.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        learner.field.density_layers[-1].bias[0] = -80.0
    learner.optimizer.step = lambda: None
    learner.field.background.requires_grad_(True)
    total = torch.zeros((), requires_grad=True)
    real = learner._losses
    learner._losses = lambda batch: (lambda found: (found[0], found[1] + 0 * total, found[2]))(real(batch))
    for _ in range(30):
        learner.step(0.0)
    assert learner.mean_error > fit_nerf.COLLAPSED * learner.mean_trivial_error


def test_held_out_patches_are_looked_at(scene: Scene, monkeypatch) -> None:
    monkeypatch.setattr(fit_nerf, "SECONDS_BETWEEN_LOOKS", 0.0)
    steps = list(fit_nerf.fit_nerf(scene, dataclasses.replace(SMALL, steps=5)))
    looks = [step.held_out for step in steps if step.held_out is not None]
    assert looks
    assert all(5 < value < 60 for value in looks)


def test_minutes_end_the_fit(scene: Scene) -> None:
    begin = time.perf_counter()
    steps = list(fit_nerf.fit_nerf(scene, dataclasses.replace(SMALL, steps=None, minutes=0.05)))
    assert time.perf_counter() - begin < 30
    assert len(steps) >= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": 1.0}, "`minutes` or `steps`, not both"),
        ({"steps": 0}, "`steps` should be above 0"),
        ({"model": "splats"}, "`model` should be one of hash, paper, tutorial"),
        ({"table_log2": 40}, "`table_log2` should be 10 to 24"),
        ({"distortion": -1.0}, "`distortion` should be 0 or more"),
        ({"depth": -1.0}, "`depth` should be 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(scene: Scene, changes, message) -> None:
    with pytest.raises(InputError, match=message):
        fit_nerf.fit_nerf(scene, dataclasses.replace(SMALL, **changes))


def test_scenes_that_nothing_can_be_learned_from_are_refused(scene: Scene) -> None:
    nothing = dataclasses.replace(scene, frames=scene.split("test"))
    with pytest.raises(InputError, match="no frames for training"):
        fit_nerf.fit_nerf(nothing, SMALL)
    frames = scene.split("train")
    for space in ("everything", "hull"):
        alike = tuple(dataclasses.replace(frame, camera=frames[0].camera) for frame in frames)
        with pytest.raises(InputError, match="one place"):
            fit_nerf.fit_nerf(
                dataclasses.replace(scene, frames=alike), dataclasses.replace(SMALL, space=space)
            )


def test_one_picture_is_learned_with_a_warning(scene: Scene, caplog) -> None:
    one = dataclasses.replace(scene, frames=scene.split("train")[:1])
    with caplog.at_level(logging.WARNING, "unrender"):
        next(fit_nerf.fit_nerf(one, SMALL))
    assert "cannot tell how far" in caplog.text
