import pytest
import torch

from unrender import perspective_n_points, random_rotations, rotation_angle
from unrender.errors import InputError


def _views(num_points, flat=False):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(5, num_points, 3, generator=generator) * torch.tensor([1, 1, 0.0 if flat else 1])
    rotations = random_rotations(5, generator=generator)
    translations = torch.tensor([0.3, -0.2, 6.0]).expand(5, 3)
    in_camera = points @ rotations.mT + translations[:, None]
    return points, in_camera[..., :2] / in_camera[..., 2:], rotations, translations


@pytest.mark.parametrize(("num_points", "flat"), [(6, False), (40, False), (12, True)])
def test_finds_poses_without_noise(num_points, flat):
    points, images, rotations, translations = _views(num_points, flat)
    found, shifts = perspective_n_points(points, images)
    assert float(rotation_angle(found, rotations).max()) < 2e-3
    torch.testing.assert_close(shifts, translations, rtol=0, atol=1e-2)


def test_weights_leave_out_outliers():
    points, images, rotations, _ = _views(20)
    images[:, :3] += 0.5
    weights = torch.ones(5, 20)
    weights[:, :3] = 0
    found, _ = perspective_n_points(points, images, weights)
    assert float(rotation_angle(found, rotations).max()) < 2e-3


def test_says_what_is_wrong():
    with pytest.raises(InputError, match="at least 4 points are needed, got 3"):
        perspective_n_points(torch.rand(3, 3), torch.rand(3, 2))
