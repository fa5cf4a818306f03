import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrender import Camera, InputError, Lens, Rays, ShapeError, clip_to_box, rays_of, rays_through
from unrender.geometry.lens import MAX_RADIUS
from unrender.geometry.rays import pixel_solid_angles

LENSES = {
    "pinhole": None,
    "radial": Lens.brown([0.1, -0.02, 0.001, 0.0005]),
    "tangential": Lens.brown([0.0578, -0.0805], [-0.00098, 0.00016]),
    "rational": Lens.brown([0.2, 0.01, 0.002], [0.001, -0.002], [0.15, 0.02, 0.001]),
    "fisheye": Lens.fisheye([0.03, -0.005, 0.001, 0.0002]),
}
lens_names = pytest.mark.parametrize("name", LENSES)


def camera_with(lens: Lens | None, size: int = 48, fov_degrees: float = 50.0) -> Camera:
    camera = Camera.look_at(
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64),
        fov_degrees=fov_degrees,
        height=size,
        width=size + 16,
    )
    return camera.replace(lens=None if lens is None else lens.to(torch.float64))


@lens_names
def test_project_and_unproject_are_inverse(name):
    camera = camera_with(LENSES[name])
    pixels = torch.rand(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 40 + 4
    torch.testing.assert_close(camera.project(camera.unproject(pixels)), pixels, rtol=1e-12, atol=1e-10)


@lens_names
def test_rays_pass_through_unprojected_points(name):
    camera = camera_with(LENSES[name])
    rays = rays_of(camera)
    assert rays.origins.shape == (48, 64, 3)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(48, 64, dtype=torch.float64))
    pixels = torch.tensor([[10.5, 30.5, 2.0], [63.5, 0.5, 5.0]], dtype=torch.float64)
    away = camera.unproject(pixels) - camera.position
    expected = away / away.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(rays_through(camera, pixels[:, :2]).directions, expected)
    torch.testing.assert_close(rays.directions[[30, 0], [10, 63]], expected)


@lens_names
def test_float32_is_exact_to_rounding(name):
    camera = camera_with(LENSES[name])
    narrow = rays_of(camera.to(torch.float32)).directions
    torch.testing.assert_close(narrow.double(), rays_of(camera).directions, rtol=0, atol=3e-7)


def test_orthographic_rays_are_parallel():
    camera = Camera.look_at([0.0, 0.0, -5.0], view_height=2.0, height=20, width=30)
    rays = rays_of(camera)
    torch.testing.assert_close(rays.directions, torch.tensor([0.0, 0, 1]).expand(20, 30, 3))
    torch.testing.assert_close(rays.origins[0, 0], torch.tensor([1.45, 0.95, -5.0]))


def test_follows_opencv():
    """Numbers of OpenCV's formulas, worked out by hand for x = 0.5, y = 0.25."""
    point = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    x, y, square = 0.5, 0.25, 0.3125
    k1, k2, p1, p2, k3 = 0.1, 0.02, 0.003, 0.004, 0.05
    factor = 1 + k1 * square + k2 * square**2 + k3 * square**3
    expected = [
        x * factor + 2 * p1 * x * y + p2 * (square + 2 * x * x),
        y * factor + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
    ]
    lens = Lens.brown([k1, k2, k3], [p1, p2]).to(torch.float64)
    torch.testing.assert_close(lens.distort(point).tolist(), expected, rtol=1e-7, atol=0)
    angle = math.atan(math.sqrt(square))
    bent = angle * (1 + k1 * angle**2)
    fisheye = Lens.fisheye([k1]).to(torch.float64).distort(point)
    torch.testing.assert_close(
        fisheye.tolist(), [x * bent / math.sqrt(square), y * bent / math.sqrt(square)], rtol=1e-7, atol=0
    )


def test_fisheye_sees_behind_itself():
    lens = Lens.fisheye().to(torch.float64)
    directions = lens.undistort(torch.tensor([[2.5, 0.0], [0.0, 0.0], [4.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(directions[0].tolist(), [math.sin(2.5), 0.0, math.cos(2.5)])
    assert directions[1].tolist() == [0.0, 0.0, 1.0]
    assert directions[2].isnan().all()  # more than half a turn


@pytest.mark.parametrize("lens", [Lens.brown([-0.3]), Lens.brown([-0.3], [0.001, 0.002])])
def test_points_beyond_the_valid_radius_are_nan(lens):
    """r (1 − 0.3 r²) rises up to r = 1/√0.9 and 0.703; the same distorted place must not be seen twice."""
    lens = lens.to(torch.float64)
    assert float(lens.max_radius) == pytest.approx(1 / math.sqrt(0.9))
    radius = torch.linspace(0, 3, 301, dtype=torch.float64)
    points = torch.stack([radius * 0.6, radius * 0.8, torch.ones_like(radius)], -1)
    seen = lens.distort(points)
    assert torch.equal(seen[:, 0].isnan(), radius > lens.max_radius)
    inside = radius < 1.04
    back = lens.undistort(seen[inside])
    torch.testing.assert_close(back / back[:, 2:], points[inside], rtol=0, atol=1e-9)
    assert lens.undistort(torch.tensor([[0.0, 0.75], [9.0, 9.0]], dtype=torch.float64)).isnan().all()


@given(
    k=st.lists(st.floats(-1, 1), min_size=1, max_size=4),
    p=st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=2),
    d=st.lists(st.floats(-1, 1), max_size=3),
)
def test_no_ray_is_silently_wrong(k, p, d):
    lens = Lens.brown(k, p, d).to(torch.float64)
    assert 0 < float(lens.max_radius) <= MAX_RADIUS["brown"]
    places = torch.cartesian_prod(*[torch.linspace(-3, 3, 13, dtype=torch.float64)] * 2)
    rays = lens.undistort(places)
    found = ~rays.isnan().any(-1)
    torch.testing.assert_close(lens.distort(rays[found]), places[found], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["tangential", "rational", "fisheye"])
def test_differentiable_in_both_directions(name):
    lens = LENSES[name].to(torch.float64)
    places = torch.tensor([[0.3, -0.2], [0.1, 0.4]], dtype=torch.float64, requires_grad=True)
    radial = lens.radial.clone().requires_grad_()

    def back(places, radial):
        return lens.replace(radial=radial).undistort(places)

    def there(places, radial):
        return lens.replace(radial=radial).distort(torch.cat([places, torch.ones_like(places[:, :1])], -1))

    assert torch.autograd.gradcheck(back, (places, radial))
    assert torch.autograd.gradcheck(there, (places, radial))


@pytest.mark.parametrize("name", ["tangential", "rational", "fisheye"])
def test_gradients_on_the_axis_are_finite(name):
    lens = LENSES[name].to(torch.float64)
    point = torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    place = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(lens.distort(point).sum(), point)
    torch.testing.assert_close(slope[0, :2], torch.full((2,), 0.5, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    (slope,) = torch.autograd.grad(lens.undistort(place)[:, :2].sum(), place)
    torch.testing.assert_close(slope[0], torch.ones(2, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_batches_of_cameras_and_lenses():
    eyes = torch.tensor([[1.0, 2, 3], [3.0, 1, 1]])
    lens = Lens(torch.tensor([[0.1, 0, 0, 0], [0.2, 0, 0, 0]]), torch.zeros(2, 2), torch.zeros(2, 3))
    cameras = Camera.look_at(eyes, height=6, width=8).replace(lens=lens)
    assert cameras[1].lens.radial.tolist() == lens.radial[1].tolist()
    points = torch.rand(5, 3)
    torch.testing.assert_close(cameras.project(points)[1], cameras[1].project(points))
    torch.testing.assert_close(cameras.unproject(points)[1], cameras[1].unproject(points))
    torch.testing.assert_close(rays_of(cameras).directions[1], rays_of(cameras[1]).directions)
    one = cameras.replace(lens=lens[0])
    assert one[1].lens is one.lens
    torch.testing.assert_close(one.project(points)[0], cameras[0].project(points))
    torch.testing.assert_close(one.unproject(points)[0], cameras[0].unproject(points))
    assert rays_through(cameras[:, None], torch.rand(5, 2)).directions.shape == (2, 5, 3)


def test_crop_and_resize_keep_the_lens():
    camera = camera_with(LENSES["tangential"])
    point = torch.tensor([[0.3, 0.2, -0.1]], dtype=torch.float64)
    seen = camera.project(point)[0, :2]
    windowed = camera.crop(4.0, 2.0, height=20, width=20).resize(40, 60).project(point)[0, :2]
    torch.testing.assert_close(windowed, (seen - seen.new_tensor([4, 2])) * seen.new_tensor([3, 2]))


def test_rays_are_clipped_to_a_box():
    low, high = torch.zeros(3), torch.ones(3)
    origins = torch.tensor([[-1.0, 0.5, 0.5], [0.5, 0.5, 0.5], [-1.0, 2.0, 0.5], [2.0, 0.5, 0.5], [0, 0, 0]])
    directions = torch.tensor([[1.0, 0, 0]]).repeat(5, 1)
    directions[4] = torch.nan
    near, far = clip_to_box(Rays(origins, directions), low, high)
    assert near[:2].tolist() == [1.0, 0.0]
    assert far[:2].tolist() == [2.0, 0.5]
    assert (far[2:] <= near[2:]).all()


def test_box_and_rays_from_everywhere():
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor([-1.0, 0, 1]), torch.tensor([1.0, 0.5, 3])
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=generator), dim=-1)
    rays = Rays(torch.randn(500, 3, generator=generator) * 3, directions)
    near, far = clip_to_box(rays, low, high)
    distances = torch.linspace(0, 12, 1201)
    points = rays.origins[:, None] + distances[:, None] * rays.directions[:, None]
    inside = ((points > low) & (points < high)).all(-1)
    expected = (distances > near[:, None] + 1e-4) & (distances < far[:, None] - 1e-4)
    sure = expected | ~((distances > near[:, None] - 1e-4) & (distances < far[:, None] + 1e-4))
    assert torch.equal(inside[sure], expected[sure])


def test_invalid_arguments_are_rejected():
    lens = Lens.brown([0.1])
    camera = camera_with(lens)
    with pytest.raises(InputError, match="lens distortion is not supported"):
        camera.project_homogeneous(torch.zeros(1, 3, dtype=torch.float64))
    with pytest.raises(InputError, match="to_pytorch3d"):
        camera.to_pytorch3d()
    with pytest.raises(InputError, match="`lens` requires a perspective projection"):
        Camera.look_at([0.0, 0, 1], view_height=1, height=4, width=4).replace(lens=lens)
    with pytest.raises(ShapeError, match=r"batch shape \[\] of the cameras, got batch shape \[2\]"):
        camera.replace(lens=Lens(torch.zeros(2, 4), torch.zeros(2, 2), torch.zeros(2, 3)))
    with pytest.raises(InputError, match="at most 4"):
        Lens.brown([0.1] * 5)
    with pytest.raises(InputError, match="finite"):
        Lens.brown([math.nan])
    with pytest.raises(InputError, match="'brown' or 'fisheye', got 'fov'"):
        lens.replace(model="fov")


def test_solid_angles_of_pixels():
    camera = Camera.look_at((1.0, 2.0, 3.0), fov_degrees=90.0, height=32, width=32).to(torch.float64)
    assert abs(float(pixel_solid_angles(camera).sum()) - 4 * math.pi / 6) < 1e-3  # a face of a cube
    panorama = camera.to_equirectangular(16)
    angles = pixel_solid_angles(panorama)
    assert abs(float(angles.sum()) - 4 * math.pi) < 1e-9
    latitude = (torch.arange(16).double() - 7.5) * math.pi / 16
    torch.testing.assert_close(
        angles, (latitude.cos() * angles[8, 0] / latitude[8].cos())[:, None].expand(16, 32)
    )
    with pytest.raises(
        InputError, match="should be a single perspective or equirectangular camera without a lens"
    ):
        pixel_solid_angles(camera.replace(projection="orthographic"))
