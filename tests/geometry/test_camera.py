import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unrender.errors import InputError, ShapeError
from unrender.geometry.camera import Camera, invert_rigid

seeds = st.integers(0, 2**31)


def random_rotation(generator: torch.Generator) -> Tensor:
    matrix = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    return matrix * torch.linalg.det(matrix).sign()


def random_camera(seed: int, projection: str = "perspective") -> Camera:
    generator = torch.Generator().manual_seed(seed)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = random_rotation(generator)
    pose[:3, 3] = torch.randn(3, generator=generator, dtype=torch.float64)
    focal, center = (torch.rand(2, 2, generator=generator, dtype=torch.float64) * 100 + 20).unbind()
    return Camera(focal, center, pose, 48, 64, projection)


def assert_same_camera(a: Camera, b: Camera) -> None:
    for name in ("focal", "center", "camera_from_world"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-12, atol=1e-12)
    assert (a.height, a.width, a.projection) == (b.height, b.width, b.projection)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, projection=st.sampled_from(["perspective", "orthographic"]))
def test_unproject_inverts_project(seed, projection):
    camera = random_camera(seed, projection)
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(2, 7, 3, generator=generator, dtype=torch.float64) * 50 + 0.1
    torch.testing.assert_close(camera.project(camera.unproject(pixels)), pixels, rtol=1e-11, atol=1e-11)


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_conventions_round_trip(seed):
    camera = random_camera(seed)
    size = {"height": 48, "width": 64}
    assert_same_camera(camera, Camera.from_opengl(camera.to_opengl(), camera.focal, camera.center, **size))
    assert_same_camera(camera, Camera.from_opencv(*camera.to_opencv(), **size))
    assert_same_camera(camera, Camera.from_pytorch3d(*camera.to_pytorch3d(), **size))


def test_look_at_centers_the_target_with_up_upwards():
    camera = Camera.look_at([3.0, 1.0, 2.0], [0.5, 0.0, 1.0], fov_degrees=50, height=40, width=60)
    target, above, right = camera.project(torch.tensor([[0.5, 0, 1], [0.5, 0.1, 1], [0.5, 0, 0.9]]))
    torch.testing.assert_close(target[:2], torch.tensor([30.0, 20.0]))
    assert target[2] == pytest.approx(math.sqrt(2.5**2 + 1 + 1))
    assert above[1] < 20
    assert above[0] == pytest.approx(30.0, abs=1e-4)
    assert right[0] > 30
    torch.testing.assert_close(camera.position, torch.tensor([3.0, 1.0, 2.0]))
    top = camera.unproject(torch.tensor([[30.0, 0.0, 1.0]]))[0] - camera.position
    forward = camera.camera_from_world[2, :3]
    assert math.degrees(math.acos(float(top @ forward / top.norm()))) == pytest.approx(25.0, abs=1e-3)


def test_looks_straight_down():
    camera = Camera.look_at([0.0, 3.0, 0.0], height=8, width=8)
    torch.testing.assert_close(camera.project(torch.zeros(1, 3))[0], torch.tensor([4.0, 4.0, 3.0]))
    torch.testing.assert_close(torch.linalg.det(camera.camera_from_world), torch.tensor(1.0))


def test_orthographic_height_fills_the_image():
    camera = Camera.look_at([0.0, 0.0, -5.0], view_height=2.0, height=20, width=30)
    corners = camera.project(torch.tensor([[0.0, 1, 0], [0, -1, 7]]))
    torch.testing.assert_close(corners, torch.tensor([[15.0, 0, 5], [15, 20, 12]]))


def test_opengl_camera_looks_backward_along_z():
    camera = Camera.from_opengl(torch.eye(4), 10.0, height=20, width=20)
    x, y, depth = camera.project(torch.tensor([[1.0, 1.0, -2.0]]))[0]
    assert (float(x), float(y), float(depth)) == (15.0, 5.0, 2.0)


def test_opencv_puts_the_first_pixel_center_at_zero():
    """cv2.projectPoints gives (fx X / Z + cx, …) with (0, 0) in the middle of the first pixel."""
    matrix = torch.tensor([[20.0, 0, 7], [0, 30, 9], [0, 0, 1]])
    camera = Camera.from_opencv(torch.eye(3), torch.tensor([0.0, 0, 1]), matrix, height=20, width=20)
    projected = camera.project(torch.tensor([[0.5, 0.25, 1.0]]))[0, :2]
    torch.testing.assert_close(projected, torch.tensor([20 * 0.25 + 7.5, 30 * 0.125 + 9.5]))


def test_colmap_quaternion_is_w_first():
    half = math.sqrt(0.5)
    camera = Camera.from_colmap(
        torch.tensor([half, 0, 0, half]), torch.tensor([0.0, 0, 2]), 10.0, height=8, width=8
    )
    projected = camera.project(torch.tensor([[1.0, 0.0, 0.0]]))[0]  # a quarter turn about z: x becomes y
    torch.testing.assert_close(projected, torch.tensor([4.0, 9.0, 2.0]))


def test_crop_and_resize_keep_the_view():
    camera = random_camera(3)
    points = camera.unproject(torch.tensor([[10.0, 20, 3], [30, 40, 5]], dtype=torch.float64))
    cropped = camera.crop(8.0, 5.5, height=10, width=12).project(points)
    torch.testing.assert_close(
        cropped[:, :2], camera.project(points)[:, :2] - torch.tensor([8.0, 5.5]).double()
    )
    larger = camera.resize(96, 192).project(points)
    torch.testing.assert_close(
        larger[:, :2], camera.project(points)[:, :2] * torch.tensor([3.0, 2.0]).double()
    )


def test_batches_broadcast_and_are_differentiable():
    eye = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    camera = Camera.look_at(eye, height=8, width=8)
    points = torch.randn(5, 3, dtype=torch.float64)
    assert camera.project(points).shape == (4, 5, 3)
    assert camera[1].project(points).shape == (5, 3)
    torch.testing.assert_close(camera.project(points)[1], camera[1].project(points))

    def projected(e: Tensor) -> Tensor:
        return Camera.look_at(e, height=8, width=8).project_homogeneous(points)

    assert torch.autograd.gradcheck(projected, eye)


def test_invalid_arguments_are_rejected():
    with pytest.raises(InputError, match="`eye` and `target` should differ"):
        Camera.look_at([0.0, 0.0, 0.0], height=8, width=8)
    with pytest.raises(InputError, match="`width` should be at least 1, got 0 × 8"):
        Camera.look_at([0.0, 0.0, 1.0], height=0, width=8)
    with pytest.raises(ShapeError, match=r"`focal` should be Float\[Tensor, '\*batch 2'\]"):
        Camera(torch.ones(3), torch.ones(2), torch.eye(4), 8, 8)


def test_agrees_with_pytorch3d(golden):
    arrays = golden("cameras")
    focal = 1 / math.tan(math.radians(arrays["fov_degrees"].item() / 2))
    camera = Camera.from_pytorch3d(arrays["R"], arrays["T"], focal, height=64, width=96)
    projected = camera.project(arrays["points_world"])
    torch.testing.assert_close(projected[..., :2], arrays["points_screen"][..., :2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(projected[..., 2], arrays["points_view"][..., 2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(camera.position, arrays["camera_center"], rtol=1e-5, atol=1e-5)
    eye_again = invert_rigid(camera.camera_from_world)[..., :3, 3]
    torch.testing.assert_close(eye_again, camera.position)


def equirectangular_camera(seed: int = 3) -> Camera:
    return random_camera(seed).to_equirectangular(48)


def test_equirectangular_projection_is_longitude_and_latitude():
    camera = equirectangular_camera()
    assert (camera.height, camera.width, camera.batch_shape) == (48, 96, ())
    ahead, down, right, behind = (camera.world_from_camera[:3, i] for i in (2, 1, 0, 2))
    points = camera.position + torch.stack(
        [2 * ahead, down + 1e-9 * ahead, 3 * right, -behind + 1e-9 * right]
    )
    wanted = [[48.0, 24, 2], [48, 48, 1], [72, 24, 3], [96, 24, 1]]
    found = camera.project(points)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), atol=1e-5, rtol=0)
    assert float(camera.project((camera.position - ahead - 1e-9 * right)[None])[0, 0]) < 1e-3  # wraps around


@given(seeds)
def test_equirectangular_unproject_inverts_project(seed):
    camera = equirectangular_camera(seed).crop(7, 3, height=20, width=31).resize(40, 31)
    points = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    pixels = camera.project(points)
    torch.testing.assert_close(camera.unproject(pixels), points, atol=1e-9, rtol=1e-9)
    origins, directions = camera.rays(pixels[:, :2])
    torch.testing.assert_close(origins + pixels[:, 2:] * directions, points, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(20, dtype=torch.float64))
    assert torch.autograd.gradcheck(camera.project, points.requires_grad_())


def test_beyond_the_poles_there_are_no_rays():
    rays = (
        equirectangular_camera()
        .crop(0, -2, height=52, width=96)
        .rays(torch.tensor([[5.0, 1.0], [5.0, 3.0]]).double())
    )
    assert rays[1].isnan().any(-1).tolist() == [True, False]


def test_equirectangular_cameras_have_no_image_plane():
    camera = equirectangular_camera()
    for use in (
        camera.to_opencv,
        camera.to_pytorch3d,
        lambda: camera.project_homogeneous(torch.zeros(1, 3).double()),
    ):
        with pytest.raises(
            InputError, match="an equirectangular camera has no image plane; split its images"
        ):
            use()
    with pytest.raises(InputError, match="`projection` should be one of perspective, orthographic, equirect"):
        camera.replace(projection="cubemap")
