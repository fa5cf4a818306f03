"""Photos that differ in brightness and in white balance."""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch

import unrender
from unrender import FitNerf, Scene
from unrender.fields.schedules import HashSchedule
from unrender.training.exposure import Exposures
from unrender.training.schedule import Schedule

SMALL = FitNerf(
    steps=150, samples=8192, table_log2=12, depth_loss_weight=0, space="aabb", exposure="per_image"
)
SHORT = Schedule(
    field=HashSchedule(occupancy_resolution=32, samples_per_side=((0.0, 48), (0.5, 96)), finest_level=64)
)
fit_nerf = functools.partial(unrender.fit_nerf, schedule=SHORT)
FACTORS = 0.5 + 0.5 * torch.rand(12, 3, generator=torch.Generator().manual_seed(0))
"""How bright the photos for training are, by channel."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The generated scene before grey, each photo for training darker than it should be, by its own factors."""
    folder = tmp_path_factory.mktemp("elephant")
    scene = unrender.save_demo_scene(folder, size=40, num_train=12, num_test=3)
    for frame in scene.frames:
        view = frame.load()
        photo = torch.lerp(torch.full_like(view.image, 0.7), view.image, view.alpha[..., None])
        if frame.split == "train":
            photo = photo * FACTORS[scene.split("train").index(frame)]
        unrender.save_image(photo, frame.image_path)
    return unrender.load_scene(folder)


def test_exposures_of_photos_are_found(scene: Scene) -> None:
    *_, last = fit_nerf(scene, SMALL)
    truth = FACTORS / FACTORS.log().mean(0).exp()
    error = (last.exposures / truth).log()
    assert error.std() < 0.03 < 0.15 < truth.log().std()


def test_exposures_may_be_left_alone(scene: Scene) -> None:
    for exposure in ("none", "auto"):  # by itself that is trained in all space
        assert next(iter(fit_nerf(scene, dataclasses.replace(SMALL, exposure=exposure)))).exposures is None


def test_a_resumed_fit_knows_the_exposures(scene: Scene, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, steps=8)
    *_, whole = fit_nerf(scene, config)
    stopped = fit_nerf(scene, config, checkpoints=tmp_path)
    for _ in range(4):
        next(stopped)
    stopped.close()
    *_, last = fit_nerf(scene, config, resume=tmp_path)
    for one, other in zip(whole.result.parameters(), last.result.parameters(), strict=True):
        assert torch.equal(one, other)


def test_exposures_leave_the_brightness_of_the_scene_alone() -> None:
    exposures = Exposures(3)
    torch.nn.init.normal_(exposures.logs)
    torch.testing.assert_close(exposures.factors().prod(0), torch.ones(3))
    colors = torch.ones(2, 3)
    assert torch.equal(exposures(colors, torch.tensor([2, 0])), exposures.factors()[[2, 0]])
