"""Depth supervision: noisy, with outliers, sparse."""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import unrender
from unrender import FitNerf, FitVolume, Scene, fit_volume
from unrender.fields.protocol import Field
from unrender.fields.schedules import HashSchedule, NerfSchedule
from unrender.training.schedule import Schedule

NOISE, OUTLIERS = 0.01, 0.1
NERF = FitNerf(steps=150, samples=8192, table_log2=12, depth_loss_weight=0.02)
SHORT = Schedule(
    field=HashSchedule(occupancy_resolution=32, samples_per_side=((0.0, 48), (0.5, 96)), finest_level=64)
)
fit_nerf = functools.partial(unrender.fit_nerf, schedule=SHORT)
VOLUME = FitVolume(resolution=48, steps=100, rays=4096, degree=1, depth_loss_weight=0.02)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The generated scene, with depths of training frames that are off by 1 %, and one in ten by anything."""
    folder, random = tmp_path_factory.mktemp("elephant"), np.random.default_rng(0)
    unrender.save_demo_scene(folder, size=48, num_train=8, num_test=3)
    for path in sorted((folder / "depth").glob("train_*.npy")):
        depth = np.load(path)
        noisy = depth * (1 + NOISE * random.standard_normal(depth.shape))
        wrong = random.random(depth.shape) < OUTLIERS
        noisy[wrong] = random.uniform(1000, 5000, int(wrong.sum()))
        np.save(path, np.where(depth > 0, noisy, 0).astype(np.float32))
    return unrender.load_scene(folder)


def sparse(scene: Scene, points_per_frame: int = 200) -> Scene:
    """The same scene as COLMAP would find it: without pictures of depth, with some points that each frame shows."""
    generator = torch.Generator().manual_seed(0)

    def with_points(frame: unrender.Frame) -> unrender.Frame:
        known = unrender.DepthSupervision([frame]).draw(points_per_frame, generator)
        points = known.rays.origins + known.distances[:, None] * known.rays.directions
        return dataclasses.replace(frame, depth_file=None, points=points)

    return dataclasses.replace(
        scene, frames=tuple(f if f.split == "test" else with_points(f) for f in scene.frames)
    )


def depth_error(steps: Iterator, scene: Scene) -> float:
    """Mean relative error of the median depth, in held-out frames."""
    *_, last = steps
    field: Field = last.result
    errors = []
    for frame in scene.split("test"):
        seen, truth = unrender.measure_depth(field, frame.camera), frame.load().depth
        errors.append(unrender.depth_errors(seen.median_z, truth, seen.valid)["abs_rel"])
    return sum(errors) / len(errors)


@pytest.fixture(scope="module")
def error_without_depth(scene: Scene) -> float:
    return depth_error(fit_nerf(scene, dataclasses.replace(NERF, depth_loss_weight=0)), scene)


def test_field_from_noisy_depth(scene: Scene, error_without_depth: float) -> None:
    error = depth_error(fit_nerf(scene, NERF), scene)
    assert error < 0.6 * error_without_depth
    assert error < NOISE


def test_field_from_sparse_points(scene: Scene, error_without_depth: float) -> None:
    assert depth_error(fit_nerf(sparse(scene), NERF), scene) < 0.9 * error_without_depth


def test_volume_from_noisy_depth(scene: Scene) -> None:
    without = depth_error(fit_volume(scene, dataclasses.replace(VOLUME, depth_loss_weight=0)), scene)
    assert depth_error(fit_volume(scene, VOLUME), scene) < 0.8 * without


def test_by_default_points_are_used_and_depth_images_are_not(scene: Scene, caplog) -> None:
    caplog.set_level("INFO", "unrender")
    start = {"steps": 1, "samples": 1024, "table_log2": 10}
    next(iter(fit_nerf(scene, FitNerf(**start))))
    assert "depth images of 8 frames are not used in training; give depth_loss_weight = 0.02" in caplog.text
    assert "depth supervision:" not in caplog.text
    next(iter(fit_nerf(sparse(scene), FitNerf(**start))))
    assert "depth supervision: 1600 depths in 8 of 8 frames" in caplog.text
    caplog.clear()
    for weight in (0.0, 0.02):
        next(iter(fit_volume(scene, FitVolume(resolution=16, steps=1, rays=256, depth_loss_weight=weight))))
        assert ("depth supervision:" in caplog.text) == (weight > 0)
        assert "are not used" not in caplog.text


def test_mlps_are_trained_on_depth(scene: Scene) -> None:
    config = FitNerf(model="tutorial", steps=1, depth_loss_weight=1.0)
    few = Schedule(field=NerfSchedule(rays=24))
    steps = [
        next(
            iter(
                unrender.fit_nerf(scene, dataclasses.replace(config, depth_loss_weight=weight), schedule=few)
            )
        )
        for weight in (0.0, 1.0)
    ]
    fields = [torch.cat([p.detach().flatten() for p in step.result.parameters()]) for step in steps]
    assert all(bool(field.isfinite().all()) for field in fields)
    assert not torch.equal(*fields)
