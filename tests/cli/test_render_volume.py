import html
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from unrender import Volume, save_volume
from unrender.cli.main import main

FEW = ["--views", "3", "--size", "40"]


@pytest.fixture
def scan(tmp_path):
    """A bright ball in the upper part of an empty box."""
    z, y, x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in (24, 20, 22)), indexing="ij")
    ball = (6 - ((x - 11) ** 2 + (y - 10) ** 2 + (z - 17) ** 2).sqrt()).clamp(min=0)
    path = tmp_path / "ball.npy"
    save_volume(Volume.in_box(ball, torch.zeros(3), torch.ones(3)), path)
    return path


@pytest.mark.parametrize("video", ["mp4", "gif", "none"])
def test_run_folder_contents(scan, tmp_path, capsys, video):
    out = tmp_path / "out"
    assert main(["render", str(scan), *FEW, "--video", video, "--output", str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "metrics.json", "report.html", "view_000.png", "view_002.png"} <= names
    assert (f"video.{video}" in names) == (video != "none")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["voxels"] == "22 × 20 × 24"
    assert metrics["visible_fraction"] < 0.8
    image = np.asarray(Image.open(out / "view_000.png"))
    assert image.shape == (40, 40, 3)
    visible = np.argwhere(image.sum(-1) > 0)
    assert np.abs(visible.mean(0) - 19.5).max() < 2  # the visible part is centered
    assert np.ptp(visible, axis=0).min() > 12
    assert str(out / "report.html") in capsys.readouterr().out


def test_transfer_options_and_spacing(scan, tmp_path):
    out = tmp_path / "out"
    options = [
        "--window",
        "1",
        "4",
        "--colormap",
        "bone",
        "--spacing",
        "1",
        "1",
        "3",
        "--background",
        "1",
        "1",
        "1",
    ]
    assert main(["render", str(scan), *FEW, *options, "--video", "none", "--output", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["window_low"], metrics["window_high"]) == (1.0, 4.0)
    assert metrics["voxel_size"] == "1 × 1 × 3"
    assert np.asarray(Image.open(out / "view_000.png"))[0, 0].tolist() == [255] * 3
    assert "--spacing 1.0 1.0 3.0" in (out / "report.html").read_text()


def test_code_in_the_report_reproduces_the_first_view(scan, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    assert main(["render", str(scan), *FEW, "--colormap", "bone", "--up", "-y", "--output", str(out)]) == 0
    code = re.findall(
        r"<pre>(?:<code>)?(import torch.*?)(?:</code>)?</pre>", (out / "report.html").read_text(), re.S
    )
    exec(html.unescape(code[0]), {})
    one, other = (np.asarray(Image.open(path)).astype(int) for path in (out / "view_000.png", "view.png"))
    assert np.abs(one - other).max() <= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "4", "1"], "the second of --window should be higher than the first, got 4 1"),
        (["--opacity", "1.5"], "--opacity should be between 0 and 1, got 1.5"),
        (["--colormap", "inferrno"], "matplotlib has no --colormap 'inferrno'"),
        (["--window", "20", "30"], "no value of the volume is inside the window"),
        (["--views", "0"], "--views 0"),
        (["--step", "0"], "--step should be a length > 0"),
        (["--elevation", "90"], "must be between -90 and 90 degrees"),
        (["--spacing", "1", "0", "1"], "three lengths > 0"),
        (["--background", "1", "2", "0"], "three numbers in [0, 1]"),
    ],
)
def test_invalid_options(scan, tmp_path, capsys, options, message):
    assert main(["render", str(scan), *options, "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_invalid_files(tmp_path, capsys):
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004\n")
    np.save(tmp_path / "b.npy", np.ones((3, 3, 3)))
    for name, message in (
        ("a.nrrd", "damaged"),
        ("b.npy", "all voxels have the same value"),
        ("c.npy", "no such file"),
    ):
        assert main(["render", str(tmp_path / name), "--output", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
