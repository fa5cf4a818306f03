"""The tour: all jobs on a generated object at reduced size, and its report in a headless Chromium."""

import contextlib
import io
import itertools
import json
import re
import shlex
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import unrender
from browser import CHROMIUM, open_tab
from unrender.cli import demo, main
from unrender.reports import mesh_report, pose_report, shape_report
from unrender.tasks.nerf.config import FitNerf
from unrender.tasks.pose.find_pose import FindPose
from unrender.tasks.volume.config import FitVolume
from unrender.tour.generate import TourSizes
from unrender.tour.report import Curve, Tour

SMALL = TourSizes(
    points=2000,
    photo_height=180,
    pose=FindPose(num_views=200, num_starts=32, resolution=96),
    pixels=48,
    num_train=16,
    num_test=3,
    volume=FitVolume(resolution=32, steps=100, rays=4096, depth=0.0),
    nerf=FitNerf(steps=120, samples=8192, table_log2=14, depth=0.0),
    spacing=0.05,
    voxel_size=0.04,
    depth_views=12,
    depth_pixels=48,
    turntable=(6, 96),
    video=(4, 48),
)
LARGEST = 15 * 2**20
"""Bytes of a report."""


class Done(NamedTuple):
    """What the demo measured and ran, and the folder that it left."""

    tour: Tour
    ran: list[tuple[str, ...]]
    folder: Path
    said: str

    def metrics(self, name: str) -> dict:
        return json.loads((self.folder / name / "metrics.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Done:
    folder, tours, ran = tmp_path_factory.mktemp("tour"), [], []
    write, run = demo.write_tour, main.run_command

    def note(tour, path):
        tours.append(tour)
        write(tour, path)

    def note_run(name, arguments):
        ran.append((name, *arguments))
        return run(name, arguments)

    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(demo, "SIZES", SMALL)
        patch.setattr(demo, "write_tour", note)
        patch.setattr(main, "run_command", note_run)
        patch.setattr(mesh_report, "NUM_VIEWS", 1)  # of the reports of single commands
        patch.setattr(pose_report, "NUM_VIEWS", 1)
        patch.setattr(pose_report, "MAX_FRAMES", 2)
        patch.setattr(shape_report, "NUM_FRAMES", 1)
        assert main.main(["demo", "--output", str(folder)]) == 0
    return Done(tours[0], ran[1:], folder, said.getvalue())


def test_every_job_is_near_the_truth(done):
    mesh, fitted, volume, seen = map(done.metrics, ("mesh", "fitted", "volume", "evaluation"))
    assert mesh["watertight"] is True
    assert mesh["mesh_to_reference_mean"] < 0.005 * mesh["diagonal"]
    assert fitted["mesh_to_reference_mean"] < 0.03 * mesh["diagonal"]
    assert volume["psnr"] > 18
    assert seen["psnr"] > 18
    assert seen["depth/median/abs_rel"] < 0.1  # of a field that learned for seconds
    figures = {job.description.name: dict(job.metrics) for job in done.tour.tasks}
    for where in ("photo", "scan"):
        assert float(figures["pose"][f"{where}: rotation error"].rstrip("°")) < 2
        assert figures["pose"][f"{where}: status"] == "converged"
    fused = figures["depth"]["mean distance, fused mesh to true surface"]
    assert 0 < float(fused.rstrip(" %")) < 4


def test_each_job_is_a_line(done):
    lines = done.said.splitlines()
    for job in done.tour.tasks:
        begin = job.description.title.replace("→", "to") + " … "
        assert sum(line.startswith(begin) and line.endswith(job.outcome) for line in lines) == 1
    assert lines[-1] == str(done.folder / "report.html")
    assert len(lines) <= 12


def test_what_is_shown_is_what_was_run(done):
    shown = [shlex.split(ran.line) for job in done.tour.tasks for ran in job.commands]
    here = f"{done.folder}/"
    assert shown == [["unrender", *(word.replace(here, "") for word in words)] for words in done.ran]
    assert len(shown) == 12


@pytest.mark.parametrize("name", ["mesh", "pose", "volume", "field", "depth"])
def test_the_lines_of_python_run(done, name, monkeypatch, capsys):
    monkeypatch.chdir(done.folder)
    for task in ("fit_mesh", "find_pose", "fit_volume", "fit_nerf"):
        monkeypatch.setattr(unrender, task, first_steps(getattr(unrender, task)))
    (job,) = (job for job in done.tour.tasks if job.description.name == name)
    names: dict[str, object] = {}
    exec(compile(job.description.python, name, "exec"), names)
    assert len(job.description.python.splitlines()) <= 9
    assert name != "depth" or len(names["mesh"].faces) > 100


def first_steps(task):
    return lambda *inputs, **more: itertools.islice(task(*inputs, **more), 2)


class Page(HTMLParser):
    """Addresses, and pictures without words for those who cannot see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links, self.places, self.sources, self.unnamed = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.links += [given["href"]] if tag == "a" else []
        self.places += [given["id"]] if "id" in given else []
        self.sources += [given[key] for key in ("src", "srcset") if key in given]
        is_unnamed = not (given.get("alt") or given.get("aria-label"))
        self.unnamed += [given] if tag in ("img", "input", "svg") and is_unnamed else []


def test_the_report_is_one_file(done):
    report = done.folder / "report.html"
    assert report.stat().st_size < LARGEST
    page = Page(report.read_text("utf-8"))
    assert page.sources
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    assert not re.search(r"url\(|@import|https?://", report.read_text("utf-8"))
    assert not page.unnamed
    for link in page.links:
        assert link[1:] in page.places if link.startswith("#") else (done.folder / link).is_file()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_report_in_a_browser(done):
    with open_tab("about:blank") as tab:
        tab.call("Network.enable")
        narrow = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
        tab.call("Emulation.setDeviceMetricsOverride", **narrow)
        still = [{"name": "prefers-reduced-motion", "value": "reduce"}]
        tab.call("Emulation.setEmulatedMedia", features=still)
        tab.call("Page.navigate", url=(done.folder / "report.html").as_uri())
        until(lambda: tab.evaluate("document.readyState") == "complete")
        assert tab.evaluate("document.documentElement.scrollWidth") == 360
        assert tab.evaluate("document.querySelector('h1').innerText").startswith(
            "unrender: inverse rendering"
        )
        broken = "[...document.images].filter(image => !image.naturalWidth).length"
        assert tab.evaluate(broken) == 0

        box = place_of(tab, ".slider")
        before = tab.picture()
        tab.drag((box["x"] + box["width"] // 2, box["middle"]), (box["x"] + 20, box["middle"]))
        assert moved(before, tab.picture(), box) > 200

        box = place_of(tab, ".frames:has(input)")
        before = tab.picture()
        tab.drag((box["x"] + 20, box["middle"]), (box["x"] + box["width"] // 2, box["middle"]))
        assert moved(before, tab.picture(), box) > 200

        assert not tab.errors
        assert not tab.complaints
        assert {url.split(":")[0] for url in tab.requests} <= {"file", "data"}


def until(is_so) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end, "never so"
        time.sleep(0.1)


def place_of(tab, selector) -> dict:
    """Bring the first such box into the middle of the window and say where it is."""
    return tab.evaluate(f"""(() => {{
        const element = document.querySelector({json.dumps(selector)});
        element.scrollIntoView({{block: "center", behavior: "instant"}});
        const {{x, y, width, height}} = element.getBoundingClientRect();
        return {{x: Math.round(x), y: Math.round(y), width: Math.round(width), height: Math.round(height),
                 middle: Math.round(y + height / 2)}};
    }})()""")


def moved(before: np.ndarray, after: np.ndarray, box: dict) -> int:
    """Count the pixels of a box that changed."""
    rows, columns = slice(box["y"], box["y"] + box["height"]), slice(box["x"], box["x"] + box["width"])
    return int((np.abs(after - before)[rows, columns] > 16).any(-1).sum())


@pytest.mark.parametrize(
    ("values", "logarithmic", "heights"),
    [([1, 2, 3], False, [96, 48, 0]), ([1, 10, 100], True, [96, 48, 0]), ([5, 5, 5], False, [48, 48, 48])],
)
def test_a_curve_fills_its_drawing(values, logarithmic, heights):
    path = Curve("of", "", [1, 2, 3], values, logarithmic).path
    assert path == "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in zip([0, 160, 320], heights, strict=True))
