import math

import pytest
import torch

from unrender.compat.pytorch3d import renderer as r
from unrender.compat.pytorch3d.utils import ico_sphere
from unrender.errors import InputError

POINTS = torch.tensor([[0.0, 0.0, 2.0], [1.0, -0.5, 2.0], [-3.0, 2.0, 1.5]])


def bent(**changes):
    settings = {
        "focal_length": torch.tensor([[200.0]]),
        "principal_point": torch.tensor([[90.0, 70.0]]),
        "radial_params": torch.tensor([[0.1, -0.05, 0.01]]),
        "tangential_params": torch.tensor([[1e-3, -2e-3]]),
        "thin_prism_params": torch.tensor([[2e-3, -1e-4, 1e-3, 3e-4]]),
    }
    return r.FishEyeCameras(**{**settings, **changes})


def test_equidistant_without_coefficients():
    camera = r.FishEyeCameras(focal_length=2.0, use_tangential=False, use_thin_prism=False)
    plane = POINTS[:, :2] / POINTS[:, 2:]
    angle = plane.norm(dim=1).atan()
    seen = camera.transform_points(POINTS)
    torch.testing.assert_close(seen[:, :2].norm(dim=1), 2 * angle)
    assert (seen[:, 2] == 1).all()


def test_undistorted_is_a_pinhole():
    camera = bent(use_radial=False, use_tangential=False, use_thin_prism=False)
    expected = POINTS[:, :2] / POINTS[:, 2:] * 200 + torch.tensor([90.0, 70.0])
    torch.testing.assert_close(camera.transform_points(POINTS)[:, :2], expected)


@pytest.mark.parametrize("parts", [(True, True), (True, False), (False, True), (False, False)])
def test_unprojects_what_it_projects(parts):
    camera = bent(use_tangential=parts[0], use_thin_prism=parts[1])
    again = camera.unproject_points(camera.transform_points(POINTS))
    torch.testing.assert_close(again, POINTS / POINTS[:, 2:], rtol=0, atol=1e-4)


def test_formula_at_one_point():
    a, b = 0.5, -0.25
    radius = math.hypot(a, b)
    angle = math.atan(radius)
    scale = angle * (1 + 0.1 * angle**2 - 0.05 * angle**4 + 0.01 * angle**6) / radius
    x, y = a * scale, b * scale
    q = x * x + y * y
    dot = 2 * (1e-3 * x - 2e-3 * y)
    u = x + dot * x + q * 1e-3 + 2e-3 * q - 1e-4 * q * q
    v = y + dot * y - q * 2e-3 + 1e-3 * q + 3e-4 * q * q
    seen = bent().transform_points(torch.tensor([[1.0, -0.5, 2.0]]))
    torch.testing.assert_close(seen, torch.tensor([[200 * u + 90, 200 * v + 70, 1.0]]))


def test_batches_and_gradients():
    focal = torch.tensor([[100.0], [200.0]], requires_grad=True)
    cameras = bent(focal_length=focal)
    for points in (POINTS, POINTS[None], POINTS.expand(2, 3, 3)):
        seen = cameras.transform_points(points)
        assert seen.shape == (2, 3, 3)
        torch.testing.assert_close(seen[1], bent().transform_points(POINTS))
    assert bent().transform_points(POINTS.expand(4, 3, 3)).shape == (4, 3, 3)
    points = POINTS.clone().requires_grad_()
    cameras[1].transform_points(points).sum().backward()
    assert focal.grad[0] == 0 != focal.grad[1]
    assert points.grad.isfinite().all()
    flat = torch.tensor([[0.0, 0, 0], [1, 2, 0], [0, 0, 1]], requires_grad=True)
    seen = bent().transform_points(flat)
    seen.sum().backward()
    assert seen.isfinite().all()
    assert flat.grad.isfinite().all()
    torch.testing.assert_close(bent(focal_length=200.0).transform_points(flat), seen)
    for wrong in (POINTS[:, :2], POINTS.expand(3, 3, 3), POINTS[0]):
        with pytest.raises(InputError, match=r"FishEyeCameras: takes points \[P, 3\]"):
            cameras.transform_points(wrong)
    with pytest.raises(InputError, match=r"`tangential_params` should be \[N, 2\], got \[1, 3\]"):
        bent(tangential_params=torch.zeros(1, 3))


def test_rasterizes_like_an_orthographic_camera_of_the_projected_points():
    R, T = r.look_at_view_transform(3.0, 20.0, 30.0)
    straight = {"use_radial": False, "use_tangential": False, "use_thin_prism": False}
    settings = r.RasterizationSettings(image_size=24)
    ball = ico_sphere(1)
    images = [
        r.MeshRasterizer(cameras, settings)(ball)
        for cameras in (
            r.FishEyeCameras(focal_length=2.0, R=R, T=T, world_coordinates=True, **straight),
            r.PerspectiveCameras(focal_length=2.0, R=R, T=T),
        )
    ]
    assert torch.equal(images[0].pix_to_face, images[1].pix_to_face)
    assert (images[0].pix_to_face >= 0).sum() > 50
