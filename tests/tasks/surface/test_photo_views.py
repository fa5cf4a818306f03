import dataclasses

import pytest
import torch

import unrender
from unrender.geometry.lens import Lens
from unrender.io.images import save_image
from unrender.tasks.surface.photo_views import load_photo_view, load_photo_views

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    scene = unrender.save_demo_scene(tmp_path_factory.mktemp("views"), size=48, num_train=2, num_test=1)
    return scene.split("train")[0]


def test_photos_keep_their_size_or_are_reduced(frame):
    loaded = frame.load_image()
    [whole] = load_photo_views([frame], 100)
    assert whole.camera is frame.camera
    assert (whole.coverage(CPU) - loaded.alpha).abs().max() < 0.003
    assert (whole.premultiplied(CPU) - loaded.image * loaded.alpha[..., None]).abs().max() < 0.003
    assert whole.valid is None
    assert bool(whole.usable(CPU).all())
    half = load_photo_view(frame, 24)
    assert (half.camera.height, half.camera.width) == half.image.shape[:2] == (24, 24)
    expected = (
        (loaded.image * loaded.alpha[..., None]).unflatten(0, (24, 2)).unflatten(2, (24, 2)).mean((1, 3))
    )
    assert (half.premultiplied(CPU) - expected).abs().max() < 0.003
    assert (whole.reduced(2).image.int() - half.image.int()).abs().max() <= 1
    assert whole.reduced(1) is whole


def test_lenses_are_removed(frame, tmp_path):
    camera = frame.camera.replace(lens=Lens.brown((-0.2, 0.02), (0.01, -0.01)))
    pixels = unrender.rays_of(camera).directions.nan_to_num()  # each pixel shows the direction of its ray
    save_image(pixels / 2 + 0.5, tmp_path / "photo.png")
    distorted = dataclasses.replace(frame, camera=camera, image_path=tmp_path / "photo.png")
    view = load_photo_view(distorted)
    assert view.camera.lens is None
    assert view.alpha is None
    valid = view.usable(CPU)
    assert 0.8 < float(valid.float().mean()) <= 1
    expected = unrender.rays_of(view.camera).directions
    assert ((view.premultiplied(CPU) * 2 - 1 - expected)[valid]).abs().max() < 0.02


def test_masks_are_reduced_to_pixels_that_are_entirely_valid(frame, tmp_path):
    mask = torch.ones(48, 48, 3)
    mask[:, :13] = 0
    save_image(mask, tmp_path / "mask.png")
    view = load_photo_view(dataclasses.replace(frame, mask_path=tmp_path / "mask.png"), 24)
    assert view.valid is not None
    assert bool((~view.valid[:, :7]).all())
    assert bool(view.valid[:, 7:].all())
