"""New views of what a run learned."""

import dataclasses
import logging
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrender._version import __version__
from unrender.data.camera_files import load_cameras, save_cameras
from unrender.data.frames import Frame
from unrender.errors import InputError
from unrender.fields.protocol import RadianceField, RenderOutput
from unrender.fields.quick_look import quick_look
from unrender.fields.uniform_samples import check_ends
from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import interpolated_path, orbit_path, spiral_path
from unrender.io.depth_preview import depth_picture
from unrender.io.files import MissingFileError
from unrender.io.images import load_image, save_image
from unrender.io.video import save_video
from unrender.reports import figures
from unrender.reports.evaluation import evenly
from unrender.reports.html import Picture, Section, write_report
from unrender.runs.folder import as_options, changes, open_run_folder, write_json
from unrender.runs.progress import take_all
from unrender.runs.saved_run import CAMERAS, Run, describe_field, load_run
from unrender.runs.video_options import Color, Film

log = logging.getLogger("unrender")
PATHS = ("auto", "orbit", "between", "spiral", "held-out")
VIEWS, FRAMES_PER_SECOND = 36, 12.0
VIEWS_BETWEEN, FEWEST_PHOTOS = 3, 8
"""Views on the way from one photo to the next, at least; unless few photos would be left, between which the way would
cut through the middle."""
QUICK_SIZE, PROBE_SIZE, QUICK_SECONDS = 400, 48, 1.0
"""Of quick views: pixels along the longer side at most, those of the first picture that tells how slow a field is, and
the time that a view may take."""
LONG = 0.1
"""Share of that time from which on a probe tells it: shorter ones are mostly what does not depend on the size."""
MOST_SAMPLES, SOLID = 4096, 0.5
"""Of quick views: samples on each ray at most, and the opacity from which on a distance is shown."""
REPORT_FRAMES, REPORT_SIZE = 12, 640
FACING = 0.9
"""Length of the mean of the cameras' directions, from which on they face one way."""


@dataclasses.dataclass(frozen=True)
class Route:
    """How to show a run."""

    path: str = "auto"
    """Where the camera goes. orbit: once around what the photos look at; between: smoothly from photo to photo;
    spiral: swaying before what all photos face; held-out: where the photos stood that are kept for tests; or a json
    file of cameras: a transforms.json, or a camera path of nerfstudio. auto: spiral where all photos face one way,
    else orbit around what has an end, and between the photos in what has none."""
    quick: bool = False
    """A fast look, small, about a second a view at most, by regular samples on each ray: color beside the mean
    distance, near dark, far bright, empty blue, with a legend."""
    samples: int = 64
    """With --quick: samples on each ray."""
    near: float | None = None
    """With --quick: the distance from the camera at which they begin. By default where the field begins."""
    far: float | None = None
    """With --quick: the distance at which they end. By default where the field ends."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """One picture that was written."""

    index: int
    last_index: int
    path: Path


def render_run(source: Path, route: Route, film: Film) -> None:
    """Write pictures, a film and a report of what a run learned."""
    _check(route)
    run = load_run(source)
    frames = choose_views(run, route.path, film.views)
    size = film.size or (_quick_size(run.field, frames[0].camera, route) if route.quick else None)
    frames = [_sized(frame, size) for frame in frames]
    if film.output is not None and film.output.resolve() == source.resolve():
        raise InputError(f"--output {film.output}: is the run itself; give another folder")
    folder = open_run_folder("render", source.resolve().name, film.output)
    inputs = {"run": source, "route": route, "film": film}
    write_json(folder / "config.json", {"unrender": __version__, "task": "render"} | inputs)
    background = run.background if film.background is None else film.background
    begin = time.perf_counter()
    shown = take_all(_show(run.field, frames, background, folder, route), _words)
    seconds = (time.perf_counter() - begin) / len(shown)
    save_cameras([_placed(frame, view) for frame, view in zip(frames, shown, strict=False)], folder / CAMERAS)
    film_path = _save_film(shown, folder / f"film.{film.video}") if film.video != "none" else None
    metrics = _metrics(run.field, frames[0].camera, len(shown), seconds)
    write_json(folder / "metrics.json", metrics)
    _report(folder, source, shown, route, metrics, _how(run, route, film, background, folder))
    print(f"{len(shown)} views, {seconds:.2f} seconds a view")
    for path in (film_path, folder / "report.html"):
        if path is not None:
            print(path)


def _check(route: Route) -> None:
    """Refuse a path that there is not, and quick samples that cannot be, before anything is read."""
    given = {name: value for name, value in changes(route).items() if name in ("samples", "near", "far")}
    if given and not route.quick:
        raise InputError(f"{' '.join(as_options(given))}: means nothing without --quick; add it")
    if not 1 <= route.samples <= MOST_SAMPLES:
        raise InputError(f"--samples {route.samples}: should be 1 to {MOST_SAMPLES}")
    check_ends("--near, --far", route.near, route.far)
    is_file = route.path.lower().endswith(".json")
    if route.path not in PATHS and not is_file:
        raise InputError(
            f"--path {route.path}: should be one of {', '.join(PATHS)}, or a json file of cameras"
        )
    if is_file and not Path(route.path).is_file():
        raise MissingFileError(f"--path {route.path}: there is no such file; check the path")


def choose_views(run: Run, path: str, count: int | None) -> list[Frame]:
    """Say where to look from; as many views as asked for, evenly chosen from those that are given."""
    if path.lower().endswith(".json"):
        return evenly(load_cameras(path), count)
    frames = run.frames()
    if path == "held-out":
        kept = [f for f in frames if f.split == "test"] or [f for f in frames if f.split == "val"]
        if not kept:
            raise InputError(f"{run.folder}: its scene keeps no photos for tests; take another --path")
        return evenly(kept, count)
    learned = [frame.camera for frame in frames if frame.split == "train"]
    cameras = _along(learned or [frame.camera for frame in frames], path, run.field, count or VIEWS)
    names = [f"view_{index:03d}.png" for index in range(*cameras.batch_shape)]
    return [Frame(name, cameras[index], run.folder / name, "test") for index, name in enumerate(names)]


def _along(cameras: list[Camera], path: str, field: RadianceField, count: int) -> Camera:
    if path == "auto":
        directions = torch.stack([camera.camera_from_world[2, :3] for camera in cameras])
        is_facing = float(directions.mean(0).norm()) > FACING
        path = "spiral" if is_facing else "between" if field.contracted else "orbit"
    if path == "between":
        keys = evenly(cameras, max(FEWEST_PHOTOS, count // VIEWS_BETWEEN))
        return interpolated_path(keys, count, closed=True, order="nearest")
    return spiral_path(cameras, count) if path == "spiral" else orbit_path(cameras, count)


def _look(field: RadianceField, camera: Camera, behind: Tensor | None, route: Route) -> RenderOutput:
    return quick_look(field, camera, behind, near=route.near, far=route.far, num_samples=route.samples)


def _quick_size(field: RadianceField, camera: Camera, route: Route) -> int:
    """Choose the longer side of quick views: small, not enlarged, and of slow fields such as a second will do for."""
    size = min(QUICK_SIZE, max(camera.height, camera.width))
    side, seconds = min(PROBE_SIZE, size), 0.0
    _look(field, _resized(camera, side), None, route)  # compiles and loads what is needed
    while True:
        probe = _resized(camera, side)
        begin = time.perf_counter()
        _look(field, probe, None, route)
        seconds = time.perf_counter() - begin
        if side == size or seconds > LONG * QUICK_SECONDS:
            break
        side = min(2 * side, size)
    in_time = int(max(probe.height, probe.width) * (QUICK_SECONDS / seconds) ** 0.5)
    if in_time >= size:
        return size
    log.info("this field is slow: quick views have %d pixels; --size asks for more", max(1, in_time))
    return max(1, in_time)


def _sized(frame: Frame, size: int | None) -> Frame:
    """Give a view its longer side."""
    return frame if size is None else dataclasses.replace(frame, camera=_resized(frame.camera, size))


def _resized(camera: Camera, size: int) -> Camera:
    scale = size / max(camera.height, camera.width)
    height, width = (max(1, round(side * scale)) for side in (camera.height, camera.width))
    return camera.resize(height, width)


def _placed(frame: Frame, view: Shown) -> Frame:
    return dataclasses.replace(frame, name=view.path.name, image_path=view.path)


def _show(
    field: RadianceField, frames: Sequence[Frame], background: Color | None, folder: Path, route: Route
) -> Iterator[Shown]:
    """Write one picture after the other, so that those made are kept whatever comes."""
    behind = None if background is None else torch.tensor(background)
    for index, frame in enumerate(frames):
        path = folder / f"view_{index:03d}.png"
        save_image(_picture(field, frame.camera, behind, route), path)
        yield Shown(index, len(frames) - 1, path)


def _picture(field: RadianceField, camera: Camera, behind: Tensor | None, route: Route) -> Tensor:
    if not route.quick:
        return field.render(camera, behind).color
    seen = _look(field, camera, behind, route)
    return torch.cat([seen.color, depth_picture(seen.distance, seen.opacity > SOLID, "grey")], 1)


def _words(view: Shown) -> str:
    return f"view {view.index + 1} of {view.last_index + 1}"


def _save_film(shown: Sequence[Shown], path: Path) -> Path | None:
    """Make a film of the pictures, one by one."""
    first = load_image(shown[0].path).shape
    if any(load_image(view.path).shape != first for view in shown):
        log.warning("the views have different sizes, and make no film")
        return None
    save_video((load_image(view.path) for view in shown), path, frames_per_second=FRAMES_PER_SECOND)
    return path


def _metrics(field: RadianceField, camera: Camera, num_views: int, seconds: float) -> dict[str, Any]:
    size = {"views": num_views, "height": camera.height, "width": camera.width}
    return size | describe_field(field) | {"seconds_per_view": seconds}


def _report(
    folder: Path,
    source: Path,
    shown: Sequence[Shown],
    route: Route,
    metrics: Mapping[str, Any],
    how: Sequence[str],
) -> None:
    chosen = [_small(load_image(view.path)) for view in evenly(shown, REPORT_FRAMES)]
    caption = "color, and mean distance: near dark, far bright, empty blue" if route.quick else "new views"
    write_report(
        folder / "report.html",
        f"Views of {source.resolve().name}",
        [
            Section("What came out", pictures=[Picture(caption, chosen)]),
            Section("Figures", figures=metrics),
            Section("Do it again", code=how),
        ],
    )


def _small(image: Tensor) -> bytes:
    """Encode a picture, averaged down to fit a report."""
    step = -(-max(image.shape[:2]) // REPORT_SIZE)
    smaller = torch.nn.functional.avg_pool2d(image.movedim(-1, 0), step, ceil_mode=True).movedim(0, -1)
    return figures.png(figures.to_bytes(smaller))


def _how(run: Run, route: Route, film: Film, background: Color | None, folder: Path) -> list[str]:
    """Write the command, and the lines of Python that make its first picture once more."""
    line = ["unrender", "render", str(run.folder), *as_options(changes(route) | changes(film))]
    behind = None if background is None else f"torch.tensor({list(background)})"
    python = [
        *(["import torch"] if background is not None else []),
        "import unrender",
        "",
        f"field = unrender.load_field({str(run.field_file)!r})",
        f"frame = unrender.load_cameras({str(folder / CAMERAS)!r})[0]",
        f"seen = {_call(route, behind)}",
        'unrender.save_image(seen.color, "view.png")',
    ]
    return [shlex.join(line), "\n".join(python)]


def _call(route: Route, behind: str | None) -> str:
    """Write the call that makes a view."""
    if not route.quick:
        return f"field.render(frame.camera, {behind})"
    ends = "" if route.near is None else f"near={route.near}, far={route.far}, "
    return f"unrender.quick_look(field, frame.camera, {behind}, {ends}num_samples={route.samples})"
