import math
import socket
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unrender import InputError, PointCloud, SceneBox, SparseVoxels, cube, load_cameras, save_demo_scene
from unrender.render.texture import Texture
from unrender.viewer.renderable import EmptyField
from unrender.viewer.watch import watch
from unrender.viewer.window import Window


@pytest.fixture
def window(tmp_path):
    with Window(port=0, path_file=tmp_path / "path.json") as window:
        yield window


def fog() -> SparseVoxels:
    return SparseVoxels.from_mask(
        torch.ones(8, 8, 8, dtype=torch.bool), SceneBox.cube(torch.zeros(3), 1.0), opacity=0.5
    )


class Client:
    """Stands for an open page."""

    def __init__(self) -> None:
        self.pictures = []
        self.scene = SimpleNamespace(set_background_image=lambda image, *_, **__: self.pictures.append(image))
        self.camera = SimpleNamespace(
            wxyz=np.array([1.0, 0.0, 0.0, 0.0]),
            position=np.array([0.0, 0.0, -4.0]),
            look_at=np.zeros(3),
            fov=0.7,
            image_height=30,
            image_width=40,
        )

    def flush(self) -> None:
        pass


@pytest.fixture
def client(window, monkeypatch):
    client = Client()
    monkeypatch.setattr(window._server, "get_clients", lambda: {0: client})
    return client


def node(window, name):
    return window._server.scene.get_handle_by_name(name)


def draw_all(window) -> None:
    end = time.monotonic() + 600
    while window.draw() or (window._cropped and not all(p.is_done for p in window._renderers.values())):
        assert time.monotonic() < end


def test_port_in_use(caplog):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Window(port=port) as window:
            assert int(window.url.rsplit(":", 1)[1]) > port
    assert f"port {port} is in use; trying the next one" in caplog.text


def test_default_host_is_local(window):
    assert window._server.get_host() == "127.0.0.1"
    assert window.url.startswith("http://localhost:")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"host": "203.0.113.7"}, "--host 203.0.113.7 --port 8080: cannot listen"),
        ({"host": "no such host"}, "--host no such host --port 8080: cannot listen"),
        ({"port": 70000}, "--port 70000: must be 0"),
    ],
)
def test_invalid_addresses(where, message):
    with pytest.raises(InputError, match=message):
        Window(**where)


def test_no_output_of_the_server(capfd):
    with Window(port=0):
        pass
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@pytest.mark.parametrize("kind", ["plain", "colored", "textured", "float64"])
def test_mesh_shown_and_cropped(window, kind):
    mesh, texture = cube(), None
    if kind == "colored":
        mesh = mesh.replace(vertex_colors=torch.rand(8, 3))
    if kind == "textured":
        texture = Texture(torch.rand(4, 4, 3), torch.rand(8, 2), mesh.faces)
    if kind == "float64":
        mesh = mesh.to(torch.float64)
    window.show(mesh, texture)
    window.draw()
    assert node(window, "/mesh") is not None
    window._crop._is_on.value = True
    window._crop._sliders[0].value = (0.0, window._crop._sliders[0].value[1])
    window._touch()
    window.draw()
    if kind in ("plain", "float64"):
        assert len(node(window, "/mesh").faces) == 2  # those that reach out of the box are gone


def test_points_shown_and_cropped(window):
    points = torch.rand(100, 3, generator=torch.Generator().manual_seed(0))
    window.show(PointCloud(points, colors=torch.rand(100, 3)))
    window.draw()
    assert len(node(window, "/cloud").points) == 100
    window._crop._is_on.value = True
    window._crop._sliders[2].value = (0.5, window._crop._sliders[2].value[1])
    window._touch()
    window.draw()
    assert len(node(window, "/cloud").points) == int((points[:, 2] >= 0.5).sum())


def test_sliders_of_flat_scenes(window):
    window.show(PointCloud(torch.tensor([[1.0, 2.0, 3.0]])))
    window.draw()
    assert all(slider.value[0] < slider.value[1] for slider in window._crop._sliders)


def test_camera_frusta(window, client, tmp_path):
    scene = save_demo_scene(tmp_path / "scene", size=16, num_train=3, num_test=1)
    (tmp_path / "scene" / scene.frames[0].name).unlink()  # they need not all be there
    window.show_cameras(scene.frames)
    draw_all(window)
    shown = [node(window, f"/cameras/{i}") for i in range(4)]
    assert [handle.image is None for handle in shown] == [True, False, False, False]
    for handle, frame in zip(shown, scene.frames, strict=True):
        np.testing.assert_allclose(handle.position, frame.camera.position.numpy(), atol=1e-6)


def test_field_is_rendered_for_open_pages(window, client):
    window.background = (1.0, 1.0, 1.0)
    window.show(fog())
    draw_all(window)
    image = client.pictures[-1]
    assert image.shape == (30, 40, 3)
    assert image[0, 0].tolist() == [255] * 3
    assert image[15, 20].max() < 200
    shown = len(client.pictures)
    assert not window.draw()
    assert len(client.pictures) == shown


def test_update_with_a_mesh_does_not_block(window, client):
    window.update(cube(), "step 1")
    assert window._status.content == "step 1"


def test_nothing_is_rendered_without_an_open_page(window, monkeypatch):
    monkeypatch.setattr(SparseVoxels, "render", None)
    window.update(fog())
    window.update(fog())
    assert not window.draw()


def steps(count=3):
    for index in range(1, count + 1):
        yield SimpleNamespace(index=index, last_index=count, losses={"color": 0.5}, result=fog())


def test_watch_passes_on_and_shows_steps(window, client, monkeypatch):
    monkeypatch.setattr("unrender.viewer.window.MIN_SECONDS", 0.0)
    for name in ("TIME_FRACTION", "TIME_FRACTION_MOVING"):
        monkeypatch.setattr(f"unrender.viewer.window.{name}", 1.0)
    assert [step.index for step in watch(steps(), window)] == [1, 2, 3]
    assert client.pictures
    assert window._status.content == "step 3 of 3  color 0.5"


def test_uncroppable_fields_are_shown_whole(window, client):
    window.show(SimpleNamespace(render=fog().render))
    window._crop._is_on.value = True
    window._touch()
    draw_all(window)
    assert client.pictures
    assert "cannot be cropped" in window._status.content


def test_one_kind_per_window(window):
    window.show(cube())
    with pytest.raises(InputError, match="this window shows a mesh; open another Window for a field"):
        window.show(fog())


def test_moving_cameras_do_not_wait_for_the_next_image_of_resting_ones(window, client, monkeypatch):
    monkeypatch.setattr("unrender.viewer.window.MIN_SECONDS", 1e9)
    window.update(fog())
    shown = len(client.pictures)
    window.update(fog())  # not due yet
    assert len(client.pictures) == shown
    client.camera.position = np.array([0.5, 0.0, -4.0])
    end = time.monotonic() + 600
    while len(client.pictures) == shown and time.monotonic() < end:
        window.update(fog())
    assert len(client.pictures) > shown


def test_pause_and_resume(window):
    window._toggle()
    taken = []
    training = threading.Thread(target=lambda: taken.extend(watch(steps(), window)), daemon=True)
    training.start()
    time.sleep(0.3)
    assert training.is_alive()
    assert not taken
    assert window._pause.label == "Resume"
    window._toggle()
    training.join(600)
    assert len(taken) == 3


def test_camera_path_for_render(window, client, tmp_path):
    panel = window._path
    panel._save()
    assert "add key views first" in panel._status.content
    panel._add(client)
    client.camera.position = np.array([1.0, 0.0, -4.0])
    panel._add(client)
    panel._count.value = 5
    panel._save()
    assert "unrender render RUN --path" in panel._status.content
    saved = load_cameras(tmp_path / "path.json")
    positions = torch.stack([frame.camera.position for frame in saved])
    torch.testing.assert_close(positions[:, 0], torch.linspace(0, 1, 5), atol=1e-5, rtol=0)
    assert (saved[0].camera.height, saved[0].camera.width) == (30, 40)
    panel._clear()
    assert not panel._keys


def test_camera_path_that_cannot_be_saved(window, client, tmp_path):
    panel = window._path
    panel._file = tmp_path / "absent" / "path.json"
    panel._add(client)
    panel._save()
    assert panel._status.content.startswith("not saved: ")


def test_saving_asks_before_it_replaces_a_file(window, client, tmp_path):
    panel, path = window._path, tmp_path / "path.json"
    path.write_text("mine")
    panel._add(client)
    panel._save(replace=panel._asked)
    assert path.read_text() == "mine"
    assert panel._replace.visible
    assert "press Replace" in panel._status.content
    panel._save(replace=panel._asked)
    assert not panel._replace.visible
    assert len(load_cameras(path)) == 60
    panel._save()
    assert panel._replace.visible


HOSTILE = [
    0,
    -1,
    1e308,
    math.nan,
    math.inf,
    -math.inf,
    10**30,
    None,
    "x",
    [],
    [1.0],
    np.zeros((2, 2)),
    b"",
    {},
]


@pytest.mark.parametrize("name", ["wxyz", "position", "look_at", "fov", "image_height", "image_width"])
def test_no_camera_message_stops_the_viewer(window, client, name):
    empty = EmptyField(torch.ones(3))
    window.show(empty)
    for value in [
        *HOSTILE,
        np.full(3, math.nan),
        np.full(4, math.inf),
        np.array(["a", "b", "c"]),
        np.zeros(4),
    ]:
        setattr(client.camera, name, value)
        window.update(empty)
        assert window.draw() is not None
        assert bool(torch.isfinite(window._path._camera_of(client).camera_from_world).all())
    window._path._add(client)
    draw_all(window)
    assert client.pictures[-1].dtype == np.uint8
    assert max(client.pictures[-1].shape) <= 3200


def test_no_value_of_a_control_stops_the_viewer(window, client):
    window.show(fog())
    panel = window._path
    window._crop._is_on._impl.value = True
    for value in [*HOSTILE, (1.0, math.nan), (math.inf, -math.inf), ("a", "b")]:
        for control in (window._mode, window._size, panel._count, *window._crop._sliders):
            control._impl.value = value
        window._crop._changed()
        window.draw()
        assert window._crop.box().shape == (2, 3)
    panel._add(client)
    panel._count._impl.value = 10**8
    panel._save()
    assert len(load_cameras(panel._file)) == 10_000
    panel._keys *= 999
    panel._add(client)
    assert len(panel._keys) == 1_000
    panel._add(client)
    assert len(panel._keys) == 1_000
    panel._clear()


def test_no_point_size_stops_the_viewer(window, client):
    cloud = PointCloud(torch.rand(10, 3))
    window.show(cloud)
    for value in HOSTILE:
        window._point_size._impl.value = value
        window._touch()
        window.draw()
        assert 0 <= node(window, "/cloud").point_size <= 2


def test_moving_cameras_leave_half_of_the_time_to_training(window, client, monkeypatch):
    seconds = {"now": 100.0, "drawing": 0.0}

    def draw() -> bool:
        seconds["now"] += 1.0
        seconds["drawing"] += 1.0
        return True

    monkeypatch.setattr("unrender.viewer.window.time.perf_counter", lambda: seconds["now"])
    monkeypatch.setattr(window, "draw", draw)
    monkeypatch.setattr(window, "_is_moving", lambda: True)
    for _ in range(60):
        seconds["now"] += 0.1
        window.update(fog())
    assert 5 <= seconds["drawing"] <= 7  # of 6 seconds of training
