import pytest
import torch

from unrender import (
    Camera,
    InputError,
    SceneBox,
    SparseVoxels,
    Volume,
    render_volume,
    window_transfer,
)
from unrender.viewer.renderable import VolumeRenderable, crop

CAMERA = Camera.look_at([0.0, 0.0, -4.0], fov_degrees=40, height=24, width=24)
LOW, HIGH = torch.tensor([-torch.inf, -torch.inf, -torch.inf]), torch.tensor([0.0, torch.inf, torch.inf])
"""The half of the world where x < 0: on the right, for a camera with y upwards that looks along z."""


def voxels(contracted=False) -> SparseVoxels:
    box = SceneBox.cube(torch.zeros(3), 1.0, contracted=contracted)
    return SparseVoxels.from_mask(torch.ones(8, 8, 8, dtype=torch.bool), box, opacity=0.5)


def volume() -> VolumeRenderable:
    values = torch.rand(8, 8, 8, generator=torch.Generator().manual_seed(0)) + 1
    shown = Volume.in_box(values, torch.full((3,), -1.0), torch.full((3,), 1.0))
    return VolumeRenderable(shown, window_transfer(shown, (0.0, 1.0)))


@pytest.mark.parametrize("make", [voxels, lambda: voxels(True), volume])
@pytest.mark.parametrize("quick", [False, True])
def test_crop_to_half(make, quick):
    half = crop(make(), LOW, HIGH).render(CAMERA, quick=quick).opacity
    assert float(half[:, :11].max()) < 1e-6
    assert float(half[12, 13]) > 0.5


def test_crop_to_nothing():
    far = torch.full((3,), 50.0)
    for thing in (voxels(), volume()):
        output = crop(thing, far, far + 1).render(CAMERA, torch.tensor([1.0, 0.0, 0.0]))
        assert float(output.opacity.abs().max()) == 0
        torch.testing.assert_close(output.color, torch.tensor([1.0, 0.0, 0.0]).expand(24, 24, 3))
    assert crop(voxels(), far, far + 1).render(CAMERA).color.shape == (24, 24, 3)


def test_volumes_equal_render_volume():
    values = torch.rand(6, 6, 6, generator=torch.Generator().manual_seed(0))
    shown = Volume.in_box(values, torch.full((3,), -1.0), torch.full((3,), 1.0))
    transfer = window_transfer(shown)
    expected = render_volume(shown, transfer, CAMERA, background=torch.zeros(3))
    output = VolumeRenderable(shown, transfer).render(CAMERA)
    torch.testing.assert_close(output.color, expected.color.clamp(0, 1))
    torch.testing.assert_close(output.distance, expected.distance)


def test_fields_without_samples_cannot_be_cropped():
    class Wall:
        def render(self, camera, background=None, *, quick=False):
            raise AssertionError

    with pytest.raises(InputError, match="a Wall cannot be cropped"):
        crop(Wall(), LOW, HIGH)
