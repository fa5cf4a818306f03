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
    volume=FitVolume(resolution=32, steps=100, rays=4096, depth_loss_weight=0.0),
    nerf=FitNerf(steps=120, samples=8192, table_log2=14, depth_loss_weight=0.0),
    spacing=0.05,
    voxel_size=0.04,
    depth_views=8,
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

    def record_tour(tour, path):
        tours.append(tour)
        write(tour, path)

    def record_run(name, arguments):
        ran.append((name, *arguments))
        return run(name, arguments)

    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(demo, "SIZES", SMALL)
        patch.setattr(demo, "write_tour", record_tour)
        patch.setattr(main, "run_command", record_run)
        patch.setattr(mesh_report, "NUM_VIEWS", 1)  # of the reports of single commands
        patch.setattr(pose_report, "NUM_VIEWS", 1)
        patch.setattr(pose_report, "MAX_FRAMES", 2)
        patch.setattr(shape_report, "NUM_FRAMES", 1)
        assert main.main(["demo", "--output", str(folder), "--device", "cpu"]) == 0
    return Done(tours[0], ran[1:], folder, said.getvalue())


def test_results_are_close_to_the_ground_truth(done):
    mesh, fitted, volume, field = map(done.metrics, ("mesh", "fitted", "volume", "evaluation"))
    assert mesh["watertight"] is True
    assert mesh["mesh_to_reference_mean"] < 0.005 * mesh["diagonal"]
    assert fitted["mesh_to_reference_mean"] < 0.04 * mesh["diagonal"]  # of a field of 120 steps: 0.030
    assert volume["psnr"] > 18
    assert field["psnr"] > 18
    assert field["depth/median/abs_rel"] < 0.1  # after seconds of training
    figures = {job.description.name: dict(job.metrics) for job in done.tour.tasks}
    for where in ("photo", "scan"):
        assert float(figures["pose"][f"{where}: rotation error"].rstrip("°")) < 2
        assert figures["pose"][f"{where}: status"] == "converged"
    fused = figures["depth"]["mean distance, fused mesh to true surface"]
    assert 0 < float(fused.rstrip(" %")) < 4


def test_one_line_per_task(done):
    lines = done.said.splitlines()
    for job in done.tour.tasks:
        prefix = job.description.title.replace("→", "to") + " … "
        assert sum(line.startswith(prefix) and line.endswith(job.outcome) for line in lines) == 1
    assert lines[-1] == str(done.folder / "report.html")
    assert len(lines) <= 12


def test_commands_in_the_report_are_those_that_ran(done):
    shown = [shlex.split(ran.line) for job in done.tour.tasks for ran in job.commands]
    here = f"{done.folder}/"
    assert shown == [["unrender", *(word.replace(here, "") for word in message)] for message in done.ran]
    assert len(shown) == 12


@pytest.mark.parametrize("name", ["mesh", "pose", "volume", "field", "depth"])
def test_python_code_runs(done, name, monkeypatch, capsys):
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
    """Links, anchors, image sources, and elements without alternative text."""

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


def test_report_is_self_contained(done):
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
def test_report_in_a_browser(done):
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

        box = scroll_to(tab, ".slider")
        before = tab.picture()
        tab.drag((box["x"] + box["width"] // 2, box["center_y"]), (box["x"] + 20, box["center_y"]))
        assert moved(before, tab.picture(), box) > 200

        box = scroll_to(tab, ".frames:has(input)")
        before = tab.picture()
        tab.drag((box["x"] + 20, box["center_y"]), (box["x"] + box["width"] // 2, box["center_y"]))
        assert moved(before, tab.picture(), box) > 200

        assert not tab.errors
        assert not tab.complaints
        assert {url.split(":")[0] for url in tab.requests} <= {"file", "data"}


def until(is_so) -> None:
    end = time.monotonic() + 600
    while not is_so():
        assert time.monotonic() < end, "never so"
        time.sleep(0.1)


def scroll_to(tab, selector) -> dict:
    """Bring the first such box into the center of the window and return its position."""
    return tab.evaluate(f"""(() => {{
        const element = document.querySelector({json.dumps(selector)});
        element.scrollIntoView({{block: "center", behavior: "instant"}});
        const {{x, y, width, height}} = element.getBoundingClientRect();
        return {{x: Math.round(x), y: Math.round(y), width: Math.round(width), height: Math.round(height),
                 center_y: Math.round(y + height / 2)}};
    }})()""")


def moved(before: np.ndarray, after: np.ndarray, box: dict) -> int:
    """Count the pixels of a box that changed."""
    rows, columns = slice(box["y"], box["y"] + box["height"]), slice(box["x"], box["x"] + box["width"])
    return int((np.abs(after - before)[rows, columns] > 16).any(-1).sum())


@pytest.mark.parametrize(
    ("values", "logarithmic", "heights"),
    [([1, 2, 3], False, [96, 48, 0]), ([1, 10, 100], True, [96, 48, 0]), ([5, 5, 5], False, [48, 48, 48])],
)
def test_curves_fill_their_plot(values, logarithmic, heights):
    path = Curve("of", "", [1, 2, 3], values, logarithmic).path
    assert path == "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in zip([0, 160, 320], heights, strict=True))
