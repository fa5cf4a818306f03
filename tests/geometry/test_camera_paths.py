import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrender import Camera, InputError, Lens, interpolated_path, orbit_path, rotation_angle, spiral_path
from unrender.geometry.camera import rigid
from unrender.geometry.camera_paths import focus_point, up_direction

from .test_camera import random_camera, random_rotation

seeds = st.integers(0, 2**31)
UP = torch.nn.functional.normalize(torch.tensor([0.2, 1.0, -0.3], dtype=torch.float64), dim=0)
CENTER = torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64)


def around(count: int = 24, distance: float = 4.0, rise: float = 0.4, part: float = 1.0) -> Camera:
    """Create cameras all around that look at `CENTER`."""
    across = torch.linalg.svd(UP[None], full_matrices=True).Vh[1:]
    turn = torch.arange(count, dtype=torch.float64)[:, None] * (part * 2 * math.pi / count)
    flat = turn.cos() * across[0] + turn.sin() * across[1]
    eyes = CENTER + distance * (math.cos(rise) * flat + math.sin(rise) * UP)
    return Camera.look_at(eyes, CENTER, UP, height=30, width=40)


def facing(count: int = 30) -> Camera:
    """Create forward-facing cameras side by side in a plane, looking along +z at a scene 5 units away."""
    generator = torch.Generator().manual_seed(0)
    eyes = torch.rand(count, 3, generator=generator, dtype=torch.float64) - 0.5
    target = torch.tensor([0.0, 0.0, 5.0], dtype=torch.float64)
    return Camera.look_at(eyes * torch.tensor([2.0, 1.0, 0.4]), target, height=30, width=40)


def assert_rigid(path: Camera, num_frames: int) -> None:
    assert path.batch_shape == (num_frames,)
    rotation = path.camera_from_world[:, :3, :3]
    eye = torch.eye(3).to(rotation).expand_as(rotation)
    torch.testing.assert_close(rotation @ rotation.mT, eye, rtol=0, atol=1e-6)
    assert bool((torch.linalg.det(rotation) > 0).all())
    assert bool((path.camera_from_world[:, 3] == torch.tensor([0.0, 0.0, 0.0, 1.0])).all())


@pytest.mark.parametrize("part", [1.0, 0.3])
def test_orbit_circles_the_focus_point(part):
    given = around(part=part)
    path = orbit_path(given, 12)
    assert_rigid(path, 12)
    seen = path.project(CENTER.expand(12, 1, 3))[:, 0]
    torch.testing.assert_close(seen, torch.tensor([20.0, 15.0, 4.0]).double().expand(12, 3))
    torch.testing.assert_close((path.position - CENTER) @ UP, torch.full((12,), 4 * math.sin(0.4)).double())
    torch.testing.assert_close(path.position[0], given.position[0])
    assert bool((path.camera_from_world[:, 0, :3] @ UP).abs().max() < 1e-12)  # upright
    assert bool((path.camera_from_world[:, 1, :3] @ UP < 0).all())
    steps = (path.position.roll(-1, 0) - path.position).norm(dim=-1)
    torch.testing.assert_close(steps, steps[:1].expand(12))
    torch.testing.assert_close(path.position.mean(0), CENTER + 4 * math.sin(0.4) * UP)


def test_orbit_has_the_median_distance_and_elevation():
    near, far = around(9, 4.0, 0.3), around(6, 9.0, 0.8)
    path = orbit_path([*(near[i] for i in range(9)), *(far[i] for i in range(6))], 5)
    torch.testing.assert_close((path.position - CENTER).norm(dim=-1), torch.full((5,), 4.0).double())
    torch.testing.assert_close((path.position - CENTER) @ UP, torch.full((5,), 4 * math.sin(0.3)).double())


@pytest.mark.parametrize("make", [orbit_path, interpolated_path, spiral_path])
def test_paths_have_the_intrinsics_of_the_first_camera_without_lens(make):
    given = facing() if make is spiral_path else around()
    first = given[0].replace(lens=Lens.brown([0.1, 0.0, 0.0, 0.0], [0.0, 0.0]))
    path = make([first.to(torch.float32), *(given[i].to(torch.float32) for i in range(1, 20))], 7)
    assert path.lens is None
    assert path.focal.dtype == path.camera_from_world.dtype == torch.float32
    assert (path.height, path.width, *path.batch_shape) == (30, 40, 7)
    torch.testing.assert_close(path.focal, first.focal.float().expand(7, 2))
    half = path.resize(15, 20)[3]
    torch.testing.assert_close(half.focal, first.focal.float() / 2)


def test_orbit_of_cameras_straight_above():
    turn = torch.arange(5, dtype=torch.float64)[:, None]
    across = torch.linalg.svd(UP[None], full_matrices=True).Vh[1:]
    up = turn.cos() * across[0] + turn.sin() * across[1]
    eyes = CENTER + (3 + 0.1 * turn) * UP
    path = orbit_path(Camera.look_at(eyes, eyes - UP, up, height=3, width=4), 4)
    assert_rigid(path, 4)
    torch.testing.assert_close(path.camera_from_world[:, 2, :3], -UP.expand(4, 3))
    quarter = path.camera_from_world[:, 0, :3]
    torch.testing.assert_close((quarter * quarter.roll(1, 0)).sum(-1), torch.zeros(4).double())


@settings(max_examples=10)
@given(seed=seeds, closed=st.booleans())
def test_interpolated_path_passes_through_the_poses(seed, closed):
    generator = torch.Generator().manual_seed(seed)
    cameras = [
        random_camera(seed % 1000 + i) for i in range(int(torch.randint(2, 7, (), generator=generator)))
    ]
    path = interpolated_path(cameras, 4001, closed=closed)
    assert_rigid(path, 4001)
    for camera in cameras:
        distance = (path.position - camera.position).norm(dim=-1)
        assert float(distance.min()) < 5e-3
        angle = rotation_angle(
            path.camera_from_world[distance.argmin(), :3, :3], camera.camera_from_world[:3, :3]
        )
        assert float(angle) < 2e-2
    torch.testing.assert_close(path.position[0], cameras[0].position)
    end = cameras[0] if closed else cameras[-1]
    assert float((path.position[-1] - end.position).norm()) < (5e-3 if closed else 1e-12)


def test_interpolated_path_is_smooth_and_follows_straight_lines():
    rotation = random_rotation(torch.Generator().manual_seed(1))
    places = torch.tensor([0.0, 1.0, 4.0, 5.0], dtype=torch.float64)[:, None] * UP + CENTER
    cameras = Camera.look_at(places, places + 1, height=3, width=4)
    cameras = cameras.replace(camera_from_world=rigid(rotation.expand(4, 3, 3), -places @ rotation.mT))
    path = interpolated_path(cameras, 11)
    expected = CENTER + torch.linspace(0, 5, 11).double()[:, None] * UP
    torch.testing.assert_close(path.position, expected)  # also evenly, although the poses are not

    way = interpolated_path(around(7), 2000, closed=True).position
    speed = way.roll(-1, 0) - way
    assert float((speed.roll(-1, 0) - speed).norm(dim=-1).max()) < 0.02 * float(speed.norm(dim=-1).max())


def test_interpolated_path_in_nearest_order():
    places = torch.tensor([0.0, 3.0, 1.0, 2.0], dtype=torch.float64)[:, None] * UP
    cameras = Camera.look_at(places, places + UP.roll(1), height=3, width=4)
    path = interpolated_path(cameras, 4, order="nearest")
    torch.testing.assert_close(path.position @ UP, torch.arange(4).double())


def test_repeated_poses_count_once():
    camera = random_camera(3)
    still = interpolated_path([camera, camera], 3, closed=True)
    torch.testing.assert_close(still.camera_from_world, camera.camera_from_world.expand(3, 4, 4))
    other = random_camera(4)
    twice, once = interpolated_path([camera, camera, other], 5), interpolated_path([camera, other], 5)
    torch.testing.assert_close(twice.camera_from_world, once.camera_from_world)


def test_spiral_faces_the_scene():
    path = spiral_path(facing(), 40)
    assert_rigid(path, 40)
    seen = path.project(torch.tensor([[0.0, 0.0, 5.0]]).double().expand(40, 1, 3))[:, 0, :2]
    assert float((seen - torch.tensor([20.0, 15.0])).abs().max()) < 0.5
    spread = path.position.amax(0) - path.position.amin(0)
    least, most = torch.tensor([1.5, 0.7, 0.1]), torch.tensor([2.1, 1.1, 0.5])
    assert bool(((spread > least) & (spread < most)).all())
    gap = (path.position[0] - path.position[-1]).norm() / (path.position[1] - path.position[0]).norm()
    assert float(gap) < 1.5  # it closes
    nearer = spiral_path(facing(), 4, focus=2.0)
    points = nearer.project(torch.tensor([[0.0, 0.0, 2.0]]).double().expand(4, 1, 3))[:, 0, :2]
    assert float((points - torch.tensor([20.0, 15.0])).abs().max()) < 1.0


def test_focus_point_of_parallel_axes_and_up_of_rotated_images():
    positions = torch.tensor([[0.0, 0, 0], [2.0, 0, 0]])
    forward = torch.tensor([[0.0, 0, 1.0], [0, 0, 1.0]])
    torch.testing.assert_close(focus_point(positions, forward), torch.tensor([1.0, 0, 2.0]))
    eyes = torch.tensor([[3.0, 0, 0], [0, 0, 3.0], [-3.0, 0, 0], [0, 0, -3.0]])
    turned = Camera.look_at(
        eyes, up=[[0.0, 1, 0], [1.0, 0, 0], [0.0, -1, 0], [-1.0, 0.1, 0]], height=3, width=4
    )
    torch.testing.assert_close(up_direction(turned).abs(), torch.tensor([0.0, 1.0, 0.0]))


def test_invalid_arguments_are_rejected():
    with pytest.raises(InputError, match="orbit_path: `num_frames` should be at least 1, got 0"):
        orbit_path(around(), 0)
    with pytest.raises(InputError, match="interpolated_path: `cameras` should hold at least one camera"):
        interpolated_path([], 5)
    with pytest.raises(InputError, match="orbit_path: all cameras share one position"):
        orbit_path(around(1), 5)
    eye = torch.tensor([0.1, 2.3, -4.7])
    turned = Camera.look_at(eye, eye + torch.eye(3) + 0.3, height=3, width=4)
    with pytest.raises(InputError, match="orbit_path: all cameras share one position"):  # but for rounding
        orbit_path(turned, 5)
    with pytest.raises(InputError, match="`order` should be one of given, nearest, got 'closest'"):
        interpolated_path(around(), 5, order="closest")
    with pytest.raises(InputError, match="spiral_path: the cameras face different directions"):
        spiral_path(around(), 5)
    with pytest.raises(InputError, match="`turns` should be at least 1 and `focus` a positive distance"):
        spiral_path(facing(), 5, turns=0)
