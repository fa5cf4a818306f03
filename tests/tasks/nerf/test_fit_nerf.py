"""Radiance fields from posed images: what comes out, and that nothing is lost on the way."""

import dataclasses
import functools
import itertools
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import launched
import unrender
from unrender.data.scenes import Scene
from unrender.errors import FileFormatError, InputError, UnrenderError
from unrender.fields.hash_nerf import HashNeRF
from unrender.fields.schedules import HashSchedule, NerfSchedule
from unrender.fields.trainable import FieldOptions
from unrender.tasks.nerf.config import FitNerf
from unrender.tasks.nerf.fit_nerf import fit_nerf as fit_at_full_size
from unrender.training.checkpoints import CHECKPOINT
from unrender.training.field_training import FieldTraining, Objective
from unrender.training.initial_occupancy import find_space
from unrender.training.schedule import Schedule
from unrender.training.shards import Shard
from unrender.training.step import TrainingStep

SMALL = FitNerf(steps=44, samples=8192, table_log2=12)
SHORT = Schedule(
    field=HashSchedule(
        occupancy_resolution=32,
        samples_per_side=((0.0, 48), (0.5, 96)),
        samples_per_side_contracted=((0.0, 24), (0.5, 48)),
        finest_level=64,
        pruning_steps=20,
    )
)
fit_nerf = functools.partial(fit_at_full_size, schedule=SHORT)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return unrender.save_demo_scene(tmp_path_factory.mktemp("elephant"), size=40, num_train=12, num_test=3)


def with_loop(**changes: float) -> Schedule:
    return dataclasses.replace(SHORT, **changes)


def errors_of(steps) -> list[float]:
    return [step.losses["color"] for step in steps]


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


def test_held_out_views_resemble_their_images(scene: Scene) -> None:
    steps = list(fit_nerf(scene, dataclasses.replace(SMALL, steps=150)))
    field = steps[-1].result
    assert sum(errors_of(steps[-20:])) < 0.2 * sum(errors_of(steps[:20]))
    values = []
    for frame in scene.split("test"):
        view = frame.load()
        photo = torch.lerp(torch.ones_like(view.image), view.image, view.alpha[..., None])
        values.append(unrender.psnr(field.render(frame.camera, torch.ones(3)).color, photo))
    assert sum(values) / len(values) > 22
    assert steps[-1].index == steps[-1].last_index == 150


@pytest.mark.parametrize("changes", [{"space": "unbounded"}, {"background": "white", "space": "aabb"}])
def test_other_scene_boxes_and_backgrounds(scene: Scene, changes) -> None:
    errors = errors_of(fit_nerf(scene, dataclasses.replace(SMALL, steps=50, **changes)))
    assert sum(errors[-9:]) / 9 < 0.8 * sum(errors[:3]) / 3


@pytest.mark.parametrize("model", ["paper", "tutorial"])
def test_other_models_train(scene: Scene, model, monkeypatch) -> None:
    few = Schedule(field=NerfSchedule(rays=24))
    batch = unrender.PixelSource(scene.split("train")).draw(24, 1)
    monkeypatch.setattr(unrender.PixelSource, "draw", lambda *_: batch)
    errors = errors_of(fit_nerf(scene, FitNerf(model=model, steps=12, background="white"), schedule=few))
    assert all(math.isfinite(error) for error in errors)
    assert errors[-1] < errors[0]


@pytest.fixture(scope="module")
def whole(scene: Scene) -> TrainingStep:
    """The last step of a training that never stopped."""
    *_, last = fit_nerf(scene, SMALL)
    return last


def test_a_resumed_fit_has_the_numbers_of_one_that_never_stopped(scene: Scene, whole, tmp_path: Path) -> None:
    first = fit_nerf(scene, SMALL, checkpoints=tmp_path)
    for _ in range(25):  # cells are pruned before and after
        next(first)
    first.close()
    rest = list(fit_nerf(scene, SMALL, resume=tmp_path))
    assert rest[0].index == 26
    assert same(whole.result, rest[-1].result)
    assert rest[-1].losses == whole.losses


def test_streamed_scenes_resume_too(scene: Scene, tmp_path: Path) -> None:
    streaming = dataclasses.replace(SMALL, steps=30, memory_mib=0.06)
    *_, whole = fit_nerf(scene, streaming)
    first = fit_nerf(scene, streaming, checkpoints=tmp_path)
    for _ in range(13):
        next(first)
    first.close()
    *_, last = fit_nerf(scene, streaming, resume=tmp_path)
    assert same(whole.result, last.result)


KILLED = """
import sys, unrender
from pathlib import Path
from unrender.fields.schedules import HashSchedule
from unrender.training.schedule import Schedule
schedule = Schedule(
    first_checkpoint_seconds=0.0,
    checkpoint_seconds=0.0,
    checkpoint_fraction=float("inf"),
    field=HashSchedule(
        occupancy_resolution=32,
        samples_per_side=((0.0, 48), (0.5, 96)),
        samples_per_side_contracted=((0.0, 24), (0.5, 48)),
        finest_level=64,
        pruning_steps=20,
    ),
)
scene = unrender.load_scene(sys.argv[1])
small = unrender.FitNerf(steps=44, samples=8192, table_log2=12)
for step in unrender.fit_nerf(scene, small, schedule=schedule, checkpoints=Path(sys.argv[2])):
    print(step.index, flush=True)
"""


def test_a_killed_fit_loses_nothing_that_was_saved(scene: Scene, whole, tmp_path: Path) -> None:
    for moment in (0.0, 0.037):
        process = launched.Forked(["-c", KILLED, str(scene.folder), str(tmp_path)])
        while process.stdout.readline().strip() != "5":
            assert process.returncode is None
        time.sleep(moment)
        process.kill()
        process.communicate()
        rest = list(fit_nerf(scene, SMALL, resume=tmp_path))
        assert rest[0].index >= 4  # a thread may still be writing the checkpoint of step 4
        assert same(whole.result, rest[-1].result)


def test_a_resume_with_other_settings_says_which(scene: Scene, tmp_path: Path) -> None:
    fit = fit_nerf(scene, SMALL, checkpoints=tmp_path)
    next(fit)
    fit.close()
    with pytest.raises(InputError, match="samples was 8192, is 4096; table_log2 was 12, is 13"):
        fit_nerf(scene, dataclasses.replace(SMALL, samples=4096, table_log2=13), resume=tmp_path)
    fewer = dataclasses.replace(scene, frames=scene.frames[1:])
    wider = [dataclasses.replace(f, camera=f.camera.replace(focal=2 * f.camera.focal)) for f in scene.frames]
    for other in (fewer, dataclasses.replace(scene, frames=tuple(wider))):
        with pytest.raises(InputError, match="other frames, cameras or depth"):
            fit_nerf(other, SMALL, resume=tmp_path)
    whole = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="damaged safetensors file"):
        fit_nerf(scene, SMALL, resume=tmp_path)
    with pytest.raises(InputError, match="no such file"):
        fit_nerf(scene, SMALL, resume=tmp_path / "nowhere")


def test_a_full_disk_costs_no_checkpoint(scene: Scene, tmp_path: Path, monkeypatch, caplog) -> None:
    fit = fit_nerf(scene, SMALL, checkpoints=tmp_path)
    next(fit)
    fit.close()
    before = (tmp_path / CHECKPOINT).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    fit = fit_nerf(scene, SMALL, checkpoints=tmp_path)
    next(fit)
    with caplog.at_level(logging.WARNING, "unrender"):
        fit.close()
    assert "the disk is full" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def training_of(scene: Scene, seed: int = 0) -> FieldTraining[HashNeRF]:
    frames = scene.split("train")
    options = FieldOptions(samples=SMALL.samples, table_log2=SMALL.table_log2, schedule=SHORT.field)
    region = find_space(scene, frames, "auto", HashNeRF.region_cells(options))
    field = HashNeRF.create(region, options, torch.Generator().manual_seed(seed))
    return FieldTraining(field, options, [Shard.whole(unrender.PixelSource(frames))], Objective(0.0), seed)


def non_finite(monkeypatch: pytest.MonkeyPatch, calls_with: Callable[[int], bool]) -> None:
    """Multiply the loss of some calls by nan."""
    real, calls = FieldTraining._losses, itertools.count(1)

    def losses(self, shard, num_rays):
        found = real(self, shard, num_rays)
        return found._replace(total=found.total * (math.nan if calls_with(next(calls)) else 1))

    monkeypatch.setattr(FieldTraining, "_losses", losses)


@pytest.mark.parametrize("steps_between_checks", [1, 4])
def test_a_non_finite_loss_leads_back_to_a_good_state(
    scene: Scene, monkeypatch, caplog, steps_between_checks
) -> None:
    non_finite(monkeypatch, lambda call: call == 17)
    schedule = with_loop(snapshot_steps=10, steps_between_checks=steps_between_checks)
    with caplog.at_level(logging.WARNING, "unrender"):
        steps = list(fit_nerf(scene, dataclasses.replace(SMALL, steps=25), schedule=schedule))
    noticed = 17 if steps_between_checks == 1 else 20
    assert f"step {noticed}: the loss is not finite: returning to step 10" in caplog.text
    assert bool(steps[-1].result.table.isfinite().all())
    assert all(math.isfinite(loss) for loss in errors_of(steps[-5:]))


def test_a_restored_state_is_complete(scene: Scene) -> None:
    training = training_of(scene)
    begin = training.state().copy()
    for _ in range(3):
        training.step(0.0)
    later = training.state().copy()
    for state in (begin, later, begin):
        training.restore(state)
        restored = training.state()
        assert restored.numbers == state.numbers
        assert restored.tensors.keys() == state.tensors.keys()
        assert all(torch.equal(restored.tensors[name], state.tensors[name]) for name in state.tensors)
        training.step(0.0)  # must not write into the state


def test_non_finite_gradients_change_no_parameter(scene: Scene) -> None:
    training = training_of(scene)
    handle = training.field.table.register_hook(lambda gradient: gradient * math.nan)
    before = training.field.table.detach().clone()
    assert not training.step(0.0).is_finite
    assert torch.equal(training.field.table, before)
    handle.remove()
    assert training.step(0.0).is_finite
    assert not torch.equal(training.field.table, before)


def test_a_fit_that_is_done_resumes_to_its_result(scene: Scene, tmp_path: Path) -> None:
    *_, last = fit_nerf(scene, dataclasses.replace(SMALL, steps=7), checkpoints=tmp_path)
    again = list(fit_nerf(scene, dataclasses.replace(SMALL, steps=7), resume=tmp_path))
    assert [step.index for step in again] == [7]
    assert same(again[0].result, last.result)
    assert again[0].losses == last.losses
    with pytest.raises(InputError, match="has taken 7 steps, more than 5"):
        fit_nerf(scene, dataclasses.replace(SMALL, steps=5), resume=tmp_path)


def test_losses_that_stay_non_finite_end_with_a_message(scene: Scene, monkeypatch) -> None:
    non_finite(monkeypatch, lambda call: True)
    with pytest.raises(
        UnrenderError, match="step 1: the loss or its gradient is not finite, after 3 returns"
    ):
        list(fit_nerf(scene, SMALL))


def test_a_collapsed_training_is_restarted_once(scene: Scene, caplog) -> None:
    schedule = with_loop(collapse_step=10, collapse_ratio=0.0)
    with (
        caplog.at_level(logging.WARNING, "unrender"),
        pytest.raises(UnrenderError, match="constant color within 10 steps, with two seeds"),
    ):
        list(fit_nerf(scene, SMALL, schedule=schedule))
    assert "restarting with another seed" in caplog.text


def test_an_empty_field_counts_as_collapsed(scene: Scene) -> None:
    training = training_of(scene)
    with torch.no_grad():
        training.field.density_layers[-1].bias[0] = -80.0
    measured = [training.step(0.0) for _ in range(3)]
    ratio = sum(m.color for m in measured) / sum(m.constant for m in measured)
    assert ratio > SHORT.collapse_ratio


def test_held_out_patches_are_evaluated(scene: Scene) -> None:
    schedule = with_loop(evaluation_seconds=0.0, evaluation_fraction=math.inf)
    steps = list(fit_nerf(scene, dataclasses.replace(SMALL, steps=5), schedule=schedule))
    assert all(5 < step.held_out_psnr < 60 for step in steps)


def test_minutes_end_the_fit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 0.5)
    monkeypatch.setattr("unrender.training.loop.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    steps = list(fit_nerf(scene, dataclasses.replace(SMALL, steps=None, minutes=0.1)))
    assert 1 <= len(steps) <= 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": 1.0}, "`minutes` or `steps`, not both"),
        ({"steps": 0}, "`steps` should be above 0"),
        ({"model": "splats"}, "`model` should be one of hash, paper, tutorial, voxels"),
        ({"table_log2": 40}, "`table_log2` should be 10 to 24"),
        ({"distortion_loss_weight": -1.0}, "`distortion_loss_weight` should be 0 or more"),
        ({"depth_loss_weight": -1.0}, "`depth_loss_weight` should be 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(scene: Scene, changes, message) -> None:
    with pytest.raises(InputError, match=message):
        fit_nerf(scene, dataclasses.replace(SMALL, **changes))


def test_scenes_without_training_data_are_refused(scene: Scene) -> None:
    nothing = dataclasses.replace(scene, frames=scene.split("test"))
    with pytest.raises(InputError, match="no training frames"):
        fit_nerf(nothing, SMALL)
    frames = scene.split("train")
    for space in ("unbounded", "visual_hull"):
        alike = tuple(dataclasses.replace(frame, camera=frames[0].camera) for frame in frames)
        with pytest.raises(InputError, match="share one position"):
            fit_nerf(dataclasses.replace(scene, frames=alike), dataclasses.replace(SMALL, space=space))


def test_a_single_image_warns(scene: Scene, caplog) -> None:
    one = dataclasses.replace(scene, frames=scene.split("train")[:1])
    with caplog.at_level(logging.WARNING, "unrender"):
        next(fit_nerf(one, SMALL))
    assert "only one training image" in caplog.text
