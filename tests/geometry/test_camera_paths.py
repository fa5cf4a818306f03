import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrender import Camera, InputError, Lens, orbit_path, path_between, rotation_angle, spiral_path
from unrender.geometry.camera import rigid
from unrender.geometry.camera_paths import nearest_to_axes, upward

from .test_camera import random_camera, random_rotation

seeds = st.integers(0, 2**31)
UP = torch.nn.functional.normalize(torch.tensor([0.2, 1.0, -0.3], dtype=torch.float64), dim=0)
MIDDLE = torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64)


def around(count: int = 24, distance: float = 4.0, rise: float = 0.4, part: float = 1.0) -> Camera:
    """Cameras that look at `MIDDLE` from all around."""
    across = torch.linalg.svd(UP[None], full_matrices=True).Vh[1:]
    turn = torch.arange(count, dtype=torch.float64)[:, None] * (part * 2 * math.pi / count)
    flat = turn.cos() * across[0] + turn.sin() * across[1]
    eyes = MIDDLE + distance * (math.cos(rise) * flat + math.sin(rise) * UP)
    return Camera.look_at(eyes, MIDDLE, UP, height=30, width=40)


def facing(count: int = 30) -> Camera:
    """Cameras in a plane, side by side, that look along +z at what is 5 before them."""
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
def test_an_orbit_goes_around_what_the_cameras_look_at(part):
    given = around(part=part)
    path = orbit_path(given, 12)
    assert_rigid(path, 12)
    seen = path.project(MIDDLE.expand(12, 1, 3))[:, 0]
    torch.testing.assert_close(seen, torch.tensor([20.0, 15.0, 4.0]).double().expand(12, 3))
    torch.testing.assert_close((path.position - MIDDLE) @ UP, torch.full((12,), 4 * math.sin(0.4)).double())
    torch.testing.assert_close(path.position[0], given.position[0])
    assert bool((path.camera_from_world[:, 0, :3] @ UP).abs().max() < 1e-12)  # upright
    assert bool((path.camera_from_world[:, 1, :3] @ UP < 0).all())
    steps = (path.position.roll(-1, 0) - path.position).norm(dim=-1)
    torch.testing.assert_close(steps, steps[:1].expand(12))
    torch.testing.assert_close(path.position.mean(0), MIDDLE + 4 * math.sin(0.4) * UP)


def test_an_orbit_has_the_middle_distance_and_elevation():
    near, far = around(9, 4.0, 0.3), around(6, 9.0, 0.8)
    path = orbit_path([*(near[i] for i in range(9)), *(far[i] for i in range(6))], 5)
    torch.testing.assert_close((path.position - MIDDLE).norm(dim=-1), torch.full((5,), 4.0).double())
    torch.testing.assert_close((path.position - MIDDLE) @ UP, torch.full((5,), 4 * math.sin(0.3)).double())


@pytest.mark.parametrize("make", [orbit_path, path_between, spiral_path])
def test_intrinsics_are_the_first_cameras_without_its_lens(make):
    given = facing() if make is spiral_path else around()
    first = given[0].replace(lens=Lens.brown([0.1, 0.0, 0.0, 0.0], [0.0, 0.0]))
    path = make([first.to(torch.float32), *(given[i].to(torch.float32) for i in range(1, 20))], 7)
    assert path.lens is None
    assert path.focal.dtype == path.camera_from_world.dtype == torch.float32
    assert (path.height, path.width, *path.batch_shape) == (30, 40, 7)
    torch.testing.assert_close(path.focal, first.focal.float().expand(7, 2))
    half = path.resize(15, 20)[3]
    torch.testing.assert_close(half.focal, first.focal.float() / 2)


def test_cameras_straight_above_make_an_orbit_too():
    turn = torch.arange(5, dtype=torch.float64)[:, None]
    across = torch.linalg.svd(UP[None], full_matrices=True).Vh[1:]
    up = turn.cos() * across[0] + turn.sin() * across[1]
    eyes = MIDDLE + (3 + 0.1 * turn) * UP
    path = orbit_path(Camera.look_at(eyes, eyes - UP, up, height=3, width=4), 4)
    assert_rigid(path, 4)
    torch.testing.assert_close(path.camera_from_world[:, 2, :3], -UP.expand(4, 3))
    quarter = path.camera_from_world[:, 0, :3]
    torch.testing.assert_close((quarter * quarter.roll(1, 0)).sum(-1), torch.zeros(4).double())


@settings(max_examples=10)
@given(seed=seeds, closed=st.booleans())
def test_a_path_passes_through_the_poses(seed, closed):
    generator = torch.Generator().manual_seed(seed)
    cameras = [
        random_camera(seed % 1000 + i) for i in range(int(torch.randint(2, 7, (), generator=generator)))
    ]
    path = path_between(cameras, 4001, closed=closed)
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


def test_a_path_is_smooth_and_straight_where_the_poses_are():
    rotation = random_rotation(torch.Generator().manual_seed(1))
    places = torch.tensor([0.0, 1.0, 4.0, 5.0], dtype=torch.float64)[:, None] * UP + MIDDLE
    cameras = Camera.look_at(places, places + 1, height=3, width=4)
    cameras = cameras.replace(camera_from_world=rigid(rotation.expand(4, 3, 3), -places @ rotation.mT))
    path = path_between(cameras, 11)
    expected = MIDDLE + torch.linspace(0, 5, 11).double()[:, None] * UP
    torch.testing.assert_close(path.position, expected)  # also evenly, although the poses are not

    way = path_between(around(7), 2000, closed=True).position
    speed = way.roll(-1, 0) - way
    assert float((speed.roll(-1, 0) - speed).norm(dim=-1).max()) < 0.02 * float(speed.norm(dim=-1).max())


def test_a_path_takes_the_nearest_next():
    places = torch.tensor([0.0, 3.0, 1.0, 2.0], dtype=torch.float64)[:, None] * UP
    cameras = Camera.look_at(places, places + UP.roll(1), height=3, width=4)
    path = path_between(cameras, 4, order="nearest")
    torch.testing.assert_close(path.position @ UP, torch.arange(4).double())


def test_equal_poses_count_once():
    camera = random_camera(3)
    still = path_between([camera, camera], 3, closed=True)
    torch.testing.assert_close(still.camera_from_world, camera.camera_from_world.expand(3, 4, 4))
    other = random_camera(4)
    twice, once = path_between([camera, camera, other], 5), path_between([camera, other], 5)
    torch.testing.assert_close(twice.camera_from_world, once.camera_from_world)


def test_a_spiral_sways_before_what_all_face():
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


def test_parallel_axes_and_turned_pictures():
    positions = torch.tensor([[0.0, 0, 0], [2.0, 0, 0]])
    forward = torch.tensor([[0.0, 0, 1.0], [0, 0, 1.0]])
    torch.testing.assert_close(nearest_to_axes(positions, forward), torch.tensor([1.0, 0, 2.0]))
    eyes = torch.tensor([[3.0, 0, 0], [0, 0, 3.0], [-3.0, 0, 0], [0, 0, -3.0]])
    turned = Camera.look_at(
        eyes, up=[[0.0, 1, 0], [1.0, 0, 0], [0.0, -1, 0], [-1.0, 0.1, 0]], height=3, width=4
    )
    torch.testing.assert_close(upward(turned).abs(), torch.tensor([0.0, 1.0, 0.0]))


def test_what_has_no_path_is_refused():
    with pytest.raises(InputError, match="orbit_path: `num_frames` should be at least 1, got 0"):
        orbit_path(around(), 0)
    with pytest.raises(InputError, match="path_between: there are no cameras"):
        path_between([], 5)
    with pytest.raises(InputError, match="orbit_path: all cameras stand in one place"):
        orbit_path(around(1), 5)
    with pytest.raises(InputError, match="`order` should be one of given, nearest, got 'closest'"):
        path_between(around(), 5, order="closest")
    with pytest.raises(InputError, match="spiral_path: the cameras do not face one way"):
        spiral_path(around(), 5)
    with pytest.raises(InputError, match="`turns` should be at least 1 and `focus` a distance > 0"):
        spiral_path(facing(), 5, turns=0)
