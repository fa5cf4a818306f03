import itertools

import pytest
import torch

from unrender import Camera, RenderOutput, SceneBox, SparseVoxels
from unrender.render.colormaps import EMPTY
from unrender.viewer.renderer import (
    INITIAL_RATE,
    REST_SECONDS,
    SECONDS_MOVING,
    ProgressiveRenderer,
    View,
)

HEIGHT, WIDTH = 60, 80


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Wall:
    """An opaque field that takes a given time per pixel."""

    def __init__(self, clock: Clock, seconds_per_pixel: float) -> None:
        self.clock, self.pace, self.calls = clock, seconds_per_pixel, []

    def render(self, camera, background=None, *, quick=False):
        self.calls.append((camera.height, camera.width, quick))
        shape = (camera.height, camera.width)
        self.clock.now += self.pace * camera.height * camera.width
        color = torch.zeros(*shape, 3) if background is None else background.expand(*shape, 3)
        return RenderOutput(color, torch.ones(shape), torch.ones(shape))


class FakeClient:
    def __init__(self) -> None:
        self.images, self.step = [], itertools.count()
        self.move()

    def move(self) -> None:
        eye = [0.0, 0.1 * next(self.step), -3.0]
        self.view = Camera.look_at(eye, fov_degrees=40, height=HEIGHT, width=WIDTH)

    def camera(self) -> Camera:
        return self.view

    def put(self, image, *, is_final) -> None:
        self.images.append((image, is_final))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def client():
    return FakeClient()


def render_all(renderer, view, clock) -> None:
    clock.now += REST_SECONDS
    for _ in range(100):
        if not renderer.render_next(view):
            return
    raise AssertionError("never done")


def test_time_budget_while_the_camera_moves(clock, client):
    wall = Wall(clock, 16 * SECONDS_MOVING / (HEIGHT * WIDTH))  # the finest takes 16 times too long
    renderer = ProgressiveRenderer(client, clock)
    for _ in range(30):
        start = clock.now
        assert renderer.render_next(View(wall))
        client.move()
    assert clock.now - start < 10 * SECONDS_MOVING  # no smaller than the smallest
    assert all(quick for *_, quick in wall.calls)
    fast = ProgressiveRenderer(client, clock)
    assert fast.render_next(View(Wall(clock, 1e-9)))
    assert client.images[-1][0].shape == (HEIGHT, WIDTH, 3)


def test_refinement_at_rest(clock, client):
    wall = Wall(clock, 4 / INITIAL_RATE)
    renderer = ProgressiveRenderer(client, clock)
    renderer._rate = 1000.0
    assert renderer.render_next(View(wall))
    assert not renderer.render_next(View(wall))  # it may move on
    assert not renderer.is_done
    render_all(renderer, View(wall), clock)
    assert renderer.is_done
    sizes = [tuple(image.shape[:2]) for image, _ in client.images]
    assert sizes == sorted(sizes)
    assert sizes[-1] == (HEIGHT, WIDTH)
    assert [final for _, final in client.images] == [False] * (len(sizes) - 1) + [True]
    assert sum(rows for rows, _, quick in wall.calls if not quick) == HEIGHT


def test_tiles_join_to_the_rendered_image(clock, client):
    field = SparseVoxels.from_mask(
        torch.ones(8, 8, 8, dtype=torch.bool), SceneBox.cube(torch.zeros(3), 0.8), opacity=0.2
    )
    renderer = ProgressiveRenderer(client, clock)
    renderer._rate = 5 * WIDTH / SECONDS_MOVING  # bands of five rows
    view = View(field, background=(1.0, 0.0, 0.0))
    renderer.render_next(view)
    renderer._rate = 5 * WIDTH / SECONDS_MOVING
    render_all(renderer, view, clock)
    expected = field.render(client.camera(), torch.tensor([1.0, 0.0, 0.0])).color
    torch.testing.assert_close(client.images[-1][0], expected)


def test_motion_interrupts_the_final_image(clock, client):
    wall = Wall(clock, SECONDS_MOVING / WIDTH)  # a row at a time
    renderer = ProgressiveRenderer(client, clock)
    renderer.render_next(View(wall))
    clock.now += REST_SECONDS
    while not (wall.calls[-1][1] == WIDTH and not wall.calls[-1][2]):
        renderer.render_next(View(wall))
    client.move()
    assert renderer.render_next(View(wall))
    assert wall.calls[-1][2]
    render_all(renderer, View(wall), clock)
    assert client.images[-1][0].shape == (HEIGHT, WIDTH, 3)


def test_new_versions_are_rendered_again(clock, client):
    wall = Wall(clock, 1e-9)
    renderer = ProgressiveRenderer(client, clock)
    render_all(renderer, View(wall), clock)
    render_all(renderer, View(wall), clock)
    assert not renderer.render_next(View(wall))
    assert renderer.render_next(View(wall, version=1))
    assert renderer.render_next(View(wall, "opacity", version=1))


@pytest.mark.parametrize("mode", ["color", "depth", "normals", "opacity"])
def test_modes_show_the_field_and_the_background(clock, client, mode):
    field = SparseVoxels.from_mask(
        torch.ones(8, 8, 8, dtype=torch.bool), SceneBox.cube(torch.zeros(3), 0.8), opacity=0.8
    )
    renderer = ProgressiveRenderer(client, clock)
    render_all(renderer, View(field, mode, (0.0, 0.0, 0.0)), clock)
    image = client.images[-1][0]
    background = torch.tensor(EMPTY if mode in ("depth", "normals") else (0.0, 0.0, 0.0))
    torch.testing.assert_close(image[0, 0], background)
    assert float((image[HEIGHT // 2, WIDTH // 2] - background).abs().max()) > 0.1
