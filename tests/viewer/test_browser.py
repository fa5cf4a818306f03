"""The page in a headless Chromium: what somebody sees there."""

import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from browser import CHROMIUM, open_tab
from unrender import Frame, SceneBox, SparseVoxels, orbit_path, save_cameras, save_field
from unrender.geometry.camera import Camera
from unrender.runs.folder import RUN_FORMAT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")]
GREEN = (0.1, 0.6, 0.1)
PATIENCE = 600
"""Seconds until anything has to have happened, on a busy machine."""


@pytest.fixture
def run(tmp_path):
    """A run of fit-volume: a green box off the center, on white."""
    mask = torch.zeros(16, 16, 16, dtype=torch.bool)
    mask[4:12, 4:12, 4:8] = True
    field = SparseVoxels.from_mask(mask, SceneBox.cube(torch.zeros(3), 1.0), degree=0, opacity=0.9)
    field.harmonics.data = ((torch.tensor(GREEN) - 0.5) / 0.28209479).expand_as(field.harmonics).contiguous()
    save_field(field, tmp_path / "volume.safetensors")
    first = Camera.look_at([0.0, 1.5, -3.0], fov_degrees=50, height=48, width=64)
    beside = Camera.look_at([3.0, 1.5, 0.0], fov_degrees=50, height=48, width=64)
    path = orbit_path([first, beside], 6)
    frames = [Frame(f"{i}.png", path[i], tmp_path / f"{i}.png") for i in range(6)]
    save_cameras(frames, tmp_path / "cameras.json")
    config = {"format": RUN_FORMAT, "task": "fit-volume", "scene": "gone", "background": [1.0, 1.0, 1.0]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def greenness(image: np.ndarray) -> np.ndarray:
    """Return which pixels of an image show the box."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    return (green > red + 60) & (green > blue + 60)


def until(tab, is_there) -> np.ndarray:
    end = time.monotonic() + PATIENCE
    while not is_there(image := tab.picture()):
        assert time.monotonic() < end, "not shown in time"
        time.sleep(0.2)
    return image


def test_open_drag_quit(run):
    command = [sys.executable, "-m", "unrender", "view", str(run), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    can_stop = {
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    }  # also from a background job
    with subprocess.Popen(command, text=True, **pipes, **can_stop) as viewer:
        rescue = threading.Timer(2 * PATIENCE, viewer.kill)
        rescue.start()
        try:
            url = viewer.stdout.readline().split(" at ")[1].split(";")[0]
            with open_tab(url) as tab:
                first = until(tab, lambda image: greenness(image).sum() > 1000)
                corner = first[-20:, :20].reshape(-1, 3)
                assert corner.min() > 245  # on white
                tab.drag((200, 300), (280, 270))
                until(tab, lambda p: (greenness(p) != greenness(first)).sum() > 500 and greenness(p).any())
                assert not tab.errors
            viewer.send_signal(signal.SIGINT)
            out, err = viewer.communicate(timeout=PATIENCE)
        finally:
            rescue.cancel()
            viewer.kill()
    assert viewer.returncode == 0
    assert out.endswith("closed\n")
    assert not [line for line in err.splitlines() if "compiling CPU kernels" not in line]
