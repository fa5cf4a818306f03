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
    """Takes so long for each pixel; its color tells where it was looked at from."""

    def __init__(self, clock: Clock, seconds_per_pixel: float) -> None:
        self.clock, self.pace, self.calls = clock, seconds_per_pixel, []

    def render(self, camera, background=None, *, quick=False):
        self.calls.append((camera.height, camera.width, quick))
        shape = (camera.height, camera.width)
        self.clock.now += self.pace * camera.height * camera.width
        color = torch.zeros(*shape, 3) if background is None else background.expand(*shape, 3)
        return RenderOutput(color, torch.ones(shape), torch.ones(shape))


class Onlooker:
    def __init__(self) -> None:
        self.pictures, self.step = [], itertools.count()
        self.move()

    def move(self) -> None:
        eye = [0.0, 0.1 * next(self.step), -3.0]
        self.seen_from = Camera.look_at(eye, fov_degrees=40, height=HEIGHT, width=WIDTH)

    def camera(self) -> Camera:
        return self.seen_from

    def put(self, image, *, is_final) -> None:
        self.pictures.append((image, is_final))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def onlooker():
    return Onlooker()


def render_all(renderer, view, clock) -> None:
    clock.now += REST_SECONDS
    for _ in range(100):
        if not renderer.render_next(view):
            return
    raise AssertionError("never done")


def test_pictures_take_as_long_as_they_may_while_one_moves(clock, onlooker):
    wall = Wall(clock, 16 * SECONDS_MOVING / (HEIGHT * WIDTH))  # the finest takes 16 times too long
    renderer = ProgressiveRenderer(onlooker, clock)
    for _ in range(30):
        begin = clock.now
        assert renderer.render_next(View(wall))
        onlooker.move()
    assert clock.now - begin < 10 * SECONDS_MOVING  # no smaller than the smallest
    assert all(quick for *_, quick in wall.calls)
    fast = ProgressiveRenderer(onlooker, clock)
    assert fast.render_next(View(Wall(clock, 1e-9)))
    assert onlooker.pictures[-1][0].shape == (HEIGHT, WIDTH, 3)


def test_pictures_get_finer_at_rest_and_then_final(clock, onlooker):
    wall = Wall(clock, 4 / INITIAL_RATE)
    renderer = ProgressiveRenderer(onlooker, clock)
    renderer._rate = 1000.0
    assert renderer.render_next(View(wall))
    assert not renderer.render_next(View(wall))  # it may move on
    assert not renderer.is_done
    render_all(renderer, View(wall), clock)
    assert renderer.is_done
    sizes = [tuple(image.shape[:2]) for image, _ in onlooker.pictures]
    assert sizes == sorted(sizes)
    assert sizes[-1] == (HEIGHT, WIDTH)
    assert [final for _, final in onlooker.pictures] == [False] * (len(sizes) - 1) + [True]
    assert sum(rows for rows, _, quick in wall.calls if not quick) == HEIGHT


def test_bands_make_the_picture_that_the_field_renders(clock, onlooker):
    field = SparseVoxels.from_mask(
        torch.ones(8, 8, 8, dtype=torch.bool), SceneBox.cube(torch.zeros(3), 0.8), opacity=0.2
    )
    renderer = ProgressiveRenderer(onlooker, clock)
    renderer._rate = 5 * WIDTH / SECONDS_MOVING  # bands of five rows
    view = View(field, background=(1.0, 0.0, 0.0))
    renderer.render_next(view)
    renderer._rate = 5 * WIDTH / SECONDS_MOVING
    render_all(renderer, view, clock)
    expected = field.render(onlooker.camera(), torch.tensor([1.0, 0.0, 0.0])).color
    torch.testing.assert_close(onlooker.pictures[-1][0], expected)


def test_who_moves_on_does_not_wait_for_the_final_picture(clock, onlooker):
    wall = Wall(clock, SECONDS_MOVING / WIDTH)  # a row at a time
    renderer = ProgressiveRenderer(onlooker, clock)
    renderer.render_next(View(wall))
    clock.now += REST_SECONDS
    while not (wall.calls[-1][1] == WIDTH and not wall.calls[-1][2]):
        renderer.render_next(View(wall))
    onlooker.move()
    assert renderer.render_next(View(wall))
    assert wall.calls[-1][2]
    render_all(renderer, View(wall), clock)
    assert onlooker.pictures[-1][0].shape == (HEIGHT, WIDTH, 3)


def test_another_version_is_drawn_anew(clock, onlooker):
    wall = Wall(clock, 1e-9)
    renderer = ProgressiveRenderer(onlooker, clock)
    render_all(renderer, View(wall), clock)
    render_all(renderer, View(wall), clock)
    assert not renderer.render_next(View(wall))
    assert renderer.render_next(View(wall, version=1))
    assert renderer.render_next(View(wall, "opacity", version=1))


@pytest.mark.parametrize("mode", ["color", "depth", "normals", "opacity"])
def test_all_modes_show_the_thing_before_what_is_empty(clock, onlooker, mode):
    field = SparseVoxels.from_mask(
        torch.ones(8, 8, 8, dtype=torch.bool), SceneBox.cube(torch.zeros(3), 0.8), opacity=0.8
    )
    renderer = ProgressiveRenderer(onlooker, clock)
    render_all(renderer, View(field, mode, (0.0, 0.0, 0.0)), clock)
    image = onlooker.pictures[-1][0]
    behind = torch.tensor(EMPTY if mode in ("depth", "normals") else (0.0, 0.0, 0.0))
    torch.testing.assert_close(image[0, 0], behind)
    assert float((image[HEIGHT // 2, WIDTH // 2] - behind).abs().max()) > 0.1
