"""A headless Chromium, driven over its DevTools protocol."""

import base64
import contextlib
import io
import itertools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator

import numpy as np
from PIL import Image
from websockets.sync.client import ClientConnection, connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--remote-debugging-port=0",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--no-first-run",
]


class Tab:
    """One open page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.errors: list[str] = []
        """Exceptions that nobody caught."""
        self.complaints: list[str] = []
        """What else the console shows as an error."""
        self.requests: list[str] = []
        """URLs that the page requested, once `Network.enable` was called."""
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters) -> dict:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=600))
            self._record(answer.get("method"), answer.get("params"))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _record(self, event: str | None, about: dict) -> None:
        if event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(about))
        if event == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        is_error = event == "Log.entryAdded" and about["entry"]["level"] == "error"
        if is_error or (event == "Runtime.consoleAPICalled" and about["type"] == "error"):
            self.complaints.append(json.dumps(about))

    def picture(self) -> np.ndarray:
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    def evaluate(self, script: str):
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def click(self, text: str) -> None:
        """Press the control that says this."""
        script = f"""(() => {{
            const found = [...document.querySelectorAll('button, label, [role=button], span, p, div')]
                .filter(e => e.textContent.trim() === {json.dumps(text)});
            found.at(-1).click(); return found.length }})()"""
        assert self.evaluate(script)

    def drag(self, start: tuple[int, int], end: tuple[int, int], steps: int = 10) -> None:
        def mouse(kind: str, x: float, y: float) -> None:
            options = {"button": "left", "buttons": 1, "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **options)

        mouse("mousePressed", *start)
        for i in range(1, steps + 1):
            x, y = (a + (b - a) * i / steps for a, b in zip(start, end, strict=True))
            mouse("mouseMoved", x, y)
            time.sleep(0.03)
        mouse("mouseReleased", *end)


@contextlib.contextmanager
def open_tab(url: str, width: int = 640, height: int = 480) -> Iterator[Tab]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}", url]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            line = next(line for line in process.stderr if line.startswith("DevTools listening on"))
            port = line.split("://")[1].split("/")[0]
            pages = []
            while not pages:
                time.sleep(0.1)
                with urllib.request.urlopen(f"http://{port}/json") as answer:
                    pages = [page for page in json.load(answer) if page["type"] == "page"]
            with connect(pages[0]["webSocketDebuggerUrl"], max_size=None) as socket:
                yield Tab(socket)
        finally:
            process.terminate()
            process.wait(600)
            process.stderr.close()
