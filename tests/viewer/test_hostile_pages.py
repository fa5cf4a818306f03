"""Pages that send garbage: training goes on, nothing is written, and nothing reaches the terminal."""

import asyncio
import contextlib
import math
import os
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import msgspec
import pytest
import torch
import viser
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from unrender import SceneBox, SparseVoxels
from unrender.viewer.client_messages import MAX_BYTES, Pacer, is_expected
from unrender.viewer.watch import watch
from unrender.viewer.window import Window

PATIENCE = 600
NUM_PAGES = 20
CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": [1.0, 0.0, 0.0, 0.0],
    "position": [0.0, 0.0, -4.0],
    "fov": 0.7,
    "near": 0.1,
    "far": 100.0,
    "image_height": 30,
    "image_width": 40,
    "look_at": [0.0, 0.0, 0.0],
    "up_direction": [0.0, 1.0, 0.0],
}
HOSTILE = [
    math.nan,
    math.inf,
    -math.inf,
    1e308,
    -1e308,
    0,
    -1,
    2**63,
    None,
    "x",
    "",
    [],
    [math.nan] * 4,
    ["a"] * 3,
    [1e308] * 3,
]
SHARED = "ShareUrlRequest"


def encoded(message: object) -> bytes:
    return msgspec.msgpack.encode(message)


def update(uuid: str, **updates: object) -> bytes:
    return encoded({"type": "GuiUpdateMessage", "uuid": uuid, "updates": updates})


class Training:
    """Steps that are taken in a thread, watched in a window."""

    def __init__(self, window: Window) -> None:
        mask = torch.ones(8, 8, 8, dtype=torch.bool)
        self._field = SparseVoxels.from_mask(mask, SceneBox.cube(torch.zeros(3), 1.0), opacity=0.5)
        self.count, self._ends = 0, False
        self.thread = threading.Thread(target=self._train, args=(window,), daemon=True)
        self.thread.start()

    def _train(self, window: Window) -> None:
        for step in watch(self._steps(), window):
            self.count = step.index

    def _steps(self):
        index = 0
        while not self._ends:
            index += 1
            time.sleep(0.002)
            yield SimpleNamespace(index=index, last_index=10**6, losses={}, result=self._field)

    def goes_on(self, steps: int = 20) -> bool:
        """Wait for further steps."""
        goal, end = self.count + steps, time.monotonic() + PATIENCE
        while self.count < goal and time.monotonic() < end and self.thread.is_alive():
            time.sleep(0.01)
        return self.count >= goal

    def end(self) -> None:
        self._ends = True
        self.thread.join(PATIENCE)


@pytest.fixture
def window(tmp_path, monkeypatch) -> Iterator[Window]:
    monkeypatch.chdir(tmp_path)
    with Window(port=0, path_file=tmp_path / "path.json") as window:
        yield window


@pytest.fixture
def training(window) -> Iterator[Training]:
    training = Training(window)
    assert training.goes_on(1)
    yield training
    training.end()


def open_page(window: Window) -> ClientConnection:
    protocol = f"viser-v{viser.__version__}"
    return connect(window.url.replace("http", "ws"), subprotocols=[protocol], max_size=None, open_timeout=60)


def is_closed(page: ClientConnection) -> bool:
    """Read until the server closes the connection."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            page.recv(timeout=PATIENCE)
        except ConnectionClosed:
            return True
    return False


GARBAGE = {
    "text": "hello",
    "nothing": b"",
    "random bytes": bytes(range(256)) * 7,
    "no map": encoded([1, 2, 3]),
    "no type": encoded({"a": 1}),
    "deep": b"\x91" * 50_000 + b"\x00",
    "too long": b"\x00" * (MAX_BYTES + 1),
    "long declared": b"\xdd\xff\xff\xff\xff",
    "another type": encoded({"type": ["x"]}),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_ends_the_connection(window, training, kind, capfd):
    with open_page(window) as page:
        page.send(GARBAGE[kind])
        assert is_closed(page)
    assert training.goes_on()
    assert capfd.readouterr() == ("", "")


def test_frames_that_are_no_websocket(window, training):
    with open_page(window) as page:
        page.socket.sendall(os.urandom(100_000))
        with contextlib.suppress(OSError):
            assert is_closed(page)
    assert training.goes_on()


def test_hostile_values(window, training, tmp_path, capfd):
    """Every value of a camera and of a control is replaced by what is not possible."""
    panel = window._path
    controls = [window._mode, window._size, panel._count, *window._crop._sliders, window._crop._is_on]
    with open_page(window) as page:
        page.send(encoded(CAMERA))
        for value in HOSTILE:
            for name in CAMERA.keys() - {"type"}:
                page.send(encoded(CAMERA | {name: value}))
            for control in controls:
                page.send(update(control._impl.uuid, value=value))
        page.send(update(panel._count._impl.uuid, value=10**8))
        for name in ("label", "update_cb", "sync_cb", "is_button", "__class__", "removed"):
            page.send(update(panel._count._impl.uuid, **{name: "x"}))
        page.send(encoded({"type": "GuiUpdateMessage", "uuid": "no such", "updates": {"value": 1}}))
        page.send(encoded({"type": "SceneNodeClickMessage", "name": "../../x", "instance_index": None}))
        page.send(encoded(CAMERA))
        assert training.goes_on(50)
    assert training.goes_on()
    assert panel._count._impl.update_cb is not None
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_messages_that_the_viewer_does_not_use(window, training, monkeypatch, tmp_path):
    monkeypatch.setattr(window._server, "request_share_url", lambda *_: pytest.fail("published"))
    uuid = window._path._count._impl.uuid
    with open_page(window) as page:
        page.send(encoded(CAMERA))
        page.send(encoded({"type": SHARED}))
        start = {"type": "FileTransferStartUpload", "source_component_uuid": uuid, "transfer_uuid": "t"}
        page.send(
            encoded(start | {"filename": "../../x", "mime_type": "a/b", "part_count": 2, "size_bytes": 2**40})
        )
        page.send(
            encoded(
                {
                    "type": "FileTransferPart",
                    "source_component_uuid": uuid,
                    "transfer_uuid": "t",
                    "part_index": 0,
                    "content": b"x" * 10_000,
                }
            )
        )
        assert training.goes_on()
        page.ping().wait(PATIENCE)
    assert not window._server.gui._current_file_upload_states
    assert not list(tmp_path.iterdir())


def test_twenty_pages(window, training, tmp_path):
    """Each moves its camera and presses buttons as fast as it can, and reads nothing."""
    panel, stop = window._path, threading.Event()
    buttons = [
        window._server.gui._gui_input_handle_from_uuid[u]
        for u in list(window._server.gui._gui_input_handle_from_uuid)
    ]
    buttons = [b for b in buttons if b._impl.is_button and b is not window._pause]
    (tmp_path / "path.json").write_text("mine")

    def flood(page: ClientConnection) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                page.send(encoded(CAMERA | {"position": [0.001 * number, 0.0, -4.0]}))
                page.send(update(buttons[number % len(buttons)]._impl.uuid, value=True))
            except (ConnectionClosed, OSError):
                return

    with contextlib.ExitStack() as stack:
        pages = [stack.enter_context(open_page(window)) for _ in range(NUM_PAGES)]
        senders = [threading.Thread(target=flood, args=(page,), daemon=True) for page in pages]
        for sender in senders:
            sender.start()
        assert training.goes_on(30)
        stop.set()
        for page in pages:
            page.close_timeout = 0
            page.socket.close()
        for sender in senders:
            sender.join(PATIENCE)
    assert training.goes_on()
    assert [path.name for path in tmp_path.iterdir()] == ["path.json"]
    assert len(panel._keys) <= 1000


def test_expected_messages():
    assert is_expected(encoded(CAMERA))
    assert not is_expected(encoded(CAMERA | {"image_height": math.nan}))
    assert is_expected(update("u", value=[1, 2.5]))
    assert not is_expected(update("u", value=[[1]]))
    assert not is_expected(update("u", value=1, label="x"))
    assert not is_expected(update("u", value="x" * 10_000))
    assert not is_expected(encoded({"type": SHARED}))


@pytest.mark.parametrize("name", ["wxyz", "position", "look_at", "up_direction"])
@pytest.mark.parametrize("value", ["\x1b]0;title\x07", "abc", [], [1.0], None, 3])
def test_vectors_that_viser_would_print_are_dropped(name, value):
    assert not is_expected(encoded(CAMERA | {name: value}))


def test_messages_wait_for_their_turn():
    now, waited = [10.0], []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        now[0] += seconds

    pacer = Pacer(10, clock=lambda: now[0], sleep=sleep)

    async def take(count: int) -> None:
        for _ in range(count):
            await pacer.wait()

    asyncio.run(take(110))
    assert len(waited) == 100
    assert now[0] == pytest.approx(20.0)
