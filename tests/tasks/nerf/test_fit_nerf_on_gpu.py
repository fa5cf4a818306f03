"""Training in graph steps by `fit_nerf`, on Warp's CPU device."""

import dataclasses
import importlib
import itertools
from pathlib import Path

import pytest
import torch

import unrender
from check_kernel import needs_warp
from unrender.data.scenes import Scene
from unrender.fields.schedules import HashSchedule
from unrender.tasks.nerf.config import FitNerf
from unrender.training import fit_field
from unrender.training.schedule import Schedule

task = importlib.import_module("unrender.tasks.nerf.fit_nerf")
graph_training = pytest.importorskip("unrender.training.graph_training")
pytestmark = needs_warp
SMALL = FitNerf(depth_loss_weight=0.02, steps=16, samples=1024, table_log2=10, device="cpu")
ALL = dataclasses.replace(SMALL, exposure="per_image", depth_loss_weight=0.1)
"""With all that is trained: the scene has depth."""
SHORT = Schedule(
    snapshot_steps=8,
    field=HashSchedule(
        occupancy_resolution=16, samples_per_side=((0.0, 16),), finest_level=32, pruning_steps=6
    ),
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return unrender.save_demo_scene(tmp_path_factory.mktemp("elephant"), size=24, num_train=6, num_test=2)


@pytest.fixture
def graph_steps(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(fit_field, "is_gpu", lambda device: True)
    return monkeypatch


def test_steps_are_graph_steps_of_the_default_field(scene, graph_steps):
    made = []
    start = graph_training.GraphTraining.__init__
    graph_steps.setattr(
        graph_training.GraphTraining,
        "__init__",
        lambda self, *given: (made.append(self), start(self, *given))[1],
    )
    steps = list(task.fit_nerf(scene, SMALL, schedule=SHORT))
    assert len(made) == 1
    assert len(made[0].graph_step.depths.distances) > 0
    assert [step.index for step in steps] == list(range(1, 17))
    assert sum(s.losses["color"] for s in steps[-4:]) < sum(s.losses["color"] for s in steps[:4])
    field = steps[-1].result
    view = field.render(scene.split("test")[0].camera, torch.ones(3))
    assert bool(view.color.isfinite().all())
    assert field.occupancy.shape == (32, 32, 32)


@pytest.mark.parametrize("resumes_on_gpu", [True, False])
def test_a_checkpoint_moves_between_devices(scene, graph_steps, tmp_path: Path, resumes_on_gpu):
    whole = list(task.fit_nerf(scene, ALL, schedule=SHORT))
    steps = task.fit_nerf(scene, ALL, schedule=SHORT, checkpoints=tmp_path)
    next(itertools.islice(steps, 8, 9))
    steps.close()
    graph_steps.setattr(fit_field, "is_gpu", lambda device: resumes_on_gpu)
    resumed = list(task.fit_nerf(scene, ALL, schedule=SHORT, resume=tmp_path))
    assert resumed[0].index == 10
    assert resumed[-1].index == 16
    if resumes_on_gpu:
        parameters = zip(whole[-1].result.parameters(), resumed[-1].result.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in parameters)


def test_a_training_on_a_cpu_resumes_on_a_gpu(scene, graph_steps, tmp_path: Path):
    graph_steps.setattr(fit_field, "is_gpu", lambda device: False)
    list(task.fit_nerf(scene, dataclasses.replace(ALL, steps=4), schedule=SHORT, checkpoints=tmp_path))
    graph_steps.setattr(fit_field, "is_gpu", lambda device: True)
    resumed = list(task.fit_nerf(scene, ALL, schedule=SHORT, resume=tmp_path))
    assert [step.index for step in resumed] == list(range(5, 17))
