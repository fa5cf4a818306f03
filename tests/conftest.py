import os

# Read when torch is loaded. Idle threads must not spin: numba keeps one for each core, and those of one worker take the
# core from the other. Each worker computes on its own cores, since threads of two workers on the same cores spend half
# of the time waiting for one another. What needs several threads asks for them.
# Only a worker sets its number: it would inherit the one of the process that starts the workers.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))
os.environ.setdefault(
    "NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1"
)  # a tenth of compiling: messages nobody reads

import dataclasses
import gc
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import Tensor

GOLDEN = Path(__file__).parents[2] / "shared/golden"

# the first example may wait for a kernel to be compiled; a suite that runs anywhere draws the same examples anywhere
hypothesis.settings.register_profile("unrender", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("unrender")


MESHES = {"align", "blend_layers", "closest_on_mesh", "interpolate", "nearest", "rasterize", "silhouette"}
GRIDS = {"march_grid", "sample_grid"}
LONG = {"cli", "tasks", "training", "test_docs.py", "test_examples.py", "test_notebooks.py"}


SECONDS_APART = 1.2
"""Between the moments at which workers collect."""


def pytest_sessionstart() -> None:
    """Let the second worker collect in another second: xdist ends if the workers find different tests.

    Each of them hashes strings differently, too. So ids show neither the time nor the order of a set.
    """
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
        time.sleep(SECONDS_APART)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each of two workers its own kernels to compile, then its own long tests; short ones even out the end.

    Workers start with equal numbers of tests, in order, and take over from one another at the end.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    halves: tuple[list[pytest.Item], list[pytest.Item]] = [], []
    long, short = [[], []], []
    files = dict.fromkeys(item.path for item in items)
    order = {file: i for i, file in enumerate(files)}
    for item in items:
        kind, *_ = item.path.relative_to(Path(__file__).parent).parts
        if kind == "kernels":
            halves[item.path.stem.removeprefix("test_") not in MESHES | GRIDS].append(item)
        elif kind in LONG:
            long[order[item.path] % 2].append(item)
        else:
            short.append(item)
    for half, more in zip(halves, long, strict=True):
        half += more
    missing = max(0, len(items) // 2 - len(halves[0]))
    items[:] = [*halves[0], *short[:missing], *halves[1], *short[missing:]]


def pytest_collection_finish() -> None:
    """Keep garbage collection from looking at all that was imported, again and again."""
    gc.collect()
    gc.freeze()


def pytest_collectstart() -> None:
    """Draw the same random numbers in a module, in whatever order modules are imported,"""
    torch.manual_seed(2)


def pytest_fixture_setup() -> None:
    """in a fixture, whoever asks first for it,"""
    torch.manual_seed(1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """and in a test, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def golden() -> Callable[[str], dict[str, Tensor]]:
    """Reference arrays computed with PyTorch3D 0.7.9."""

    def load(name: str) -> dict[str, Tensor]:
        path = GOLDEN / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"no reference arrays {path.name}")
        return {key: torch.from_numpy(value) for key, value in np.load(path).items()}

    return load


class Trained(NamedTuple):
    """A small radiance field, trained in seconds, and its scene."""

    scene: Any
    field: Any


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A hash field of the demo scene, small enough to be trained once, by one worker, for all tests that need one."""
    import unrender
    from unrender.fields.schedules import HashSchedule
    from unrender.training.schedule import Schedule

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers of this run
    file = folder / "trained.safetensors"
    with FileLock(folder / "trained.lock"):
        if not file.exists():
            scene = unrender.save_demo_scene(folder / "trained", size=64, num_train=20, num_test=3)
            short = HashSchedule(
                occupancy_resolution=64,
                samples_per_side=((0.0, 64), (0.3, 192)),
                finest_level=192,
                pruning_steps=30,
            )
            config = unrender.FitNerf(steps=200, samples=8192, table_log2=14, depth_loss_weight=0.0)
            *_, last = unrender.fit_nerf(scene, config, schedule=Schedule(field=short))
            unrender.save_field(last.result, file)
    return Trained(unrender.load_scene(folder / "trained"), unrender.load_field(file))


FEW = {
    "fit_mesh": {"steps": 20, "max_points": 3000},
    "find_pose": {"num_views": 200, "num_starts": 32, "resolution": 96},
    "fit_volume": {"steps": 40, "rays": 2048},
    "fit_nerf": {"steps": 60, "samples": 2048},
}
"""Largest settings of tasks in examples and notebooks, which show what they do with more."""


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit settings of tasks, meshes and scenes: what examples and notebooks call stays the same."""
    import unrender
    from unrender.geometry.simplify import cluster_vertices

    def limited(task: Callable[..., Any], limits: dict[str, int]) -> Callable[..., Any]:
        default = inspect.signature(task).parameters["config"].default

        def run(*given: object, **options: object) -> Any:
            inputs, config = (
                (given[:-1], given[-1]) if isinstance(given[-1], type(default)) else (given, default)
            )
            fewer = {name: min(getattr(config, name), limit) for name, limit in limits.items()}
            return task(*inputs, dataclasses.replace(config, **fewer), **options)

        return run

    for name, limits in FEW.items():
        monkeypatch.setattr(unrender, name, limited(getattr(unrender, name), limits))
    coarse, save = cluster_vertices(unrender.demo_object(), 24), unrender.save_demo_scene
    monkeypatch.setattr(unrender, "demo_object", lambda: coarse)
    monkeypatch.setattr(
        unrender, "save_demo_scene", lambda *given, **sizes: save(*given, **(sizes | {"num_train": 12}))
    )


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render few and small images for reports, which take longer than the jobs of tests."""
    from unrender.reports import (
        field_report,
        figures,
        mesh_report,
        pose_report,
        regions_report,
        shape_fit_report,
        shape_report,
    )

    render = figures.render
    monkeypatch.setattr(figures, "render", lambda shape, camera: render(shape, camera.resize_longest(64)))
    few = {mesh_report: 2, pose_report: 1, regions_report: 1, shape_fit_report: 2}
    for report, count in few.items():
        monkeypatch.setattr(report, "NUM_VIEWS", count)
    monkeypatch.setattr(pose_report, "MAX_FRAMES", 2)
    monkeypatch.setattr(pose_report, "PHOTO_SIZE", 160)
    monkeypatch.setattr(pose_report, "CLOSE_UP_SIZE", 80)
    monkeypatch.setattr(shape_fit_report, "MAX_FRAMES", 2)
    monkeypatch.setattr(shape_report, "NUM_FRAMES", 2)
    monkeypatch.setattr(field_report, "NUM_FRAMES", 4)
    monkeypatch.setattr(field_report, "VIDEO_SIZE", 64)
