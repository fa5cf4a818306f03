"""New views of what a run learned."""

import dataclasses
import json
import logging
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from unrender._version import __version__
from unrender.cli import pictures
from unrender.cli.film import Color, Film
from unrender.cli.progress import take_all
from unrender.cli.report import Picture, Section, write_report
from unrender.cli.run_folder import as_options, changes, open_run_folder, write_json
from unrender.errors import FileFormatError, InputError
from unrender.fields.voxels import SparseVoxels
from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import orbit_path, path_between, spiral_path
from unrender.io.camera_files import load_cameras, save_cameras
from unrender.io.files import MissingFileError, read_bytes, reading
from unrender.io.films import save_video
from unrender.io.frames import Frame
from unrender.io.images import load_image, save_image
from unrender.io.scenes import load_scene
from unrender.render.looks import distance_colors
from unrender.tasks.saved_fields import load_field

log = logging.getLogger("unrender")
PATHS = ("auto", "orbit", "between", "spiral", "held-out")
VIEWS, FRAMES_PER_SECOND = 36, 12.0
VIEWS_BETWEEN, FEWEST_PHOTOS = 3, 8
"""Views on the way from one photo to the next, at least; unless few photos would be left, between which the way would
cut through the middle."""
QUICK_SIZE = 320
REPORT_FRAMES, REPORT_SIZE = 12, 640
FACING = 0.9
"""Length of the mean of the cameras' directions, from which on they face one way."""
Item = TypeVar("Item")
CAMERAS, VOLUME = "cameras.json", "volume.safetensors"


@dataclasses.dataclass(frozen=True)
class Route:
    """How to show a run."""

    path: str = "auto"
    """Where the camera goes. orbit: once around what the photos look at; between: smoothly from photo to photo;
    spiral: swaying before what all photos face; held-out: where the photos stood that are kept for tests; or a json
    file of cameras: a transforms.json, or a camera path of nerfstudio. auto: spiral where all photos face one way,
    else orbit around what has an end, and between the photos in what has none."""
    quick: bool = False
    """A fast look, small, with fewer samples: color beside distance, near dark, far bright, empty blue."""


class Run(NamedTuple):
    """What a run of fit-volume left."""

    folder: Path
    field: SparseVoxels
    background: Color | None
    """What is behind its results; None for what was learned."""
    scene: str | None
    """Where the photos were."""

    def frames(self) -> tuple[Frame, ...]:
        """Load where the photos stood; the photos need not be there any more."""
        if (self.folder / CAMERAS).is_file():
            return load_cameras(self.folder / CAMERAS)
        if self.scene is None or not Path(self.scene).exists():
            raise InputError(
                f"{self.folder}: it has no {CAMERAS}, and its scene {self.scene} is gone; "
                "give cameras: --path FILE.json"
            )
        return load_scene(self.scene).frames


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
    frames = [_sized(frame, film.size, route.quick) for frame in frames]
    if film.output is not None and film.output.resolve() == source.resolve():
        raise InputError(f"--output {film.output}: is the run itself; give another folder")
    folder = open_run_folder("render", source.resolve().name, film.output)
    inputs = {"run": source, "route": route, "film": film}
    write_json(folder / "config.json", {"unrender": __version__, "task": "render"} | inputs)
    background = run.background if film.background is None else film.background
    begin = time.perf_counter()
    shown = take_all(_show(run.field, frames, background, folder, route.quick), _words)
    seconds = (time.perf_counter() - begin) / len(shown)
    save_cameras([_placed(frame, view) for frame, view in zip(frames, shown, strict=False)], folder / CAMERAS)
    film_path = _save_film(shown, folder / f"film.{film.video}") if film.video != "none" else None
    metrics = _metrics(run.field, frames[0].camera, len(shown), seconds)
    write_json(folder / "metrics.json", metrics)
    _report(folder, source, shown, route, metrics, _how(source, route, film, background, folder))
    print(f"{len(shown)} views, {seconds:.2f} seconds a view")
    for path in (film_path, folder / "report.html"):
        if path is not None:
            print(path)


def _check(route: Route) -> None:
    """Refuse a path that there is not, before anything is read."""
    is_file = route.path.lower().endswith(".json")
    if route.path not in PATHS and not is_file:
        raise InputError(
            f"--path {route.path}: should be one of {', '.join(PATHS)}, or a json file of cameras"
        )
    if is_file and not Path(route.path).is_file():
        raise MissingFileError(f"--path {route.path}: there is no such file; check the path")


def load_run(folder: Path) -> Run:
    """Load what `unrender fit-volume` wrote."""
    place = folder / "config.json"
    if not place.is_file():
        raise MissingFileError(
            f"{folder}: no run: it has no config.json; `unrender fit-volume SCENE` makes one"
        )
    data = read_bytes(place)
    with reading(place):
        config = json.loads(data)
        if not isinstance(config, dict) or "task" not in config:
            raise FileFormatError("it does not say what the run did: unrender did not write it")
    if config["task"] != "fit-volume":
        raise InputError(
            f"{folder}: a run of {config['task']}, which learns no volume; give one of fit-volume"
        )
    if not (folder / VOLUME).is_file():
        raise MissingFileError(
            f"{folder}: the run has no {VOLUME}: it did not come to an end; run fit-volume again"
        )
    scene = config.get("scene")
    return Run(
        folder, load_field(folder / VOLUME), _background(place, config), None if scene is None else str(scene)
    )


def _background(place: Path, config: Mapping[str, Any]) -> Color | None:
    given = config.get("background")
    with reading(place):
        if given is None:
            return None
        red, green, blue = (float(channel) for channel in given)
        return red, green, blue


def choose_views(run: Run, path: str, count: int | None) -> list[Frame]:
    """Say where to look from; as many views as asked for, evenly chosen from those that are given."""
    if path.lower().endswith(".json"):
        return _some(load_cameras(path), count)
    frames = run.frames()
    if path == "held-out":
        kept = [f for f in frames if f.split == "test"] or [f for f in frames if f.split == "val"]
        if not kept:
            raise InputError(f"{run.folder}: its scene keeps no photos for tests; take another --path")
        return _some(kept, count)
    learned = [frame.camera for frame in frames if frame.split == "train"]
    cameras = _along(learned or [frame.camera for frame in frames], path, run.field, count or VIEWS)
    names = [f"view_{index:03d}.png" for index in range(*cameras.batch_shape)]
    return [Frame(name, cameras[index], run.folder / name, "test") for index, name in enumerate(names)]


def _along(cameras: list[Camera], path: str, field: SparseVoxels, count: int) -> Camera:
    if path == "auto":
        directions = torch.stack([camera.camera_from_world[2, :3] for camera in cameras])
        is_facing = float(directions.mean(0).norm()) > FACING
        path = "spiral" if is_facing else "between" if field.contracted else "orbit"
    if path == "between":
        keys = _some(cameras, max(FEWEST_PHOTOS, count // VIEWS_BETWEEN))
        return path_between(keys, count, closed=True, order="nearest")
    return spiral_path(cameras, count) if path == "spiral" else orbit_path(cameras, count)


def _some(items: Sequence[Item], count: int | None) -> list[Item]:
    if count is None or count >= len(items):
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def _sized(frame: Frame, size: int | None, quick: bool) -> Frame:
    """Give a view its longer side; a quick one is small unless asked otherwise, and none is enlarged for it."""
    camera = frame.camera
    longest = max(camera.height, camera.width)
    scale = (size or (min(QUICK_SIZE, longest) if quick else longest)) / longest
    height, width = (max(1, round(side * scale)) for side in (camera.height, camera.width))
    return dataclasses.replace(frame, camera=camera.resize(height, width))


def _placed(frame: Frame, view: Shown) -> Frame:
    return dataclasses.replace(frame, name=view.path.name, image_path=view.path)


def _show(
    field: SparseVoxels, frames: Sequence[Frame], background: Color | None, folder: Path, quick: bool
) -> Iterator[Shown]:
    """Write one picture after the other, so that those made are kept whatever comes."""
    behind = None if background is None else torch.tensor(background)
    for index, frame in enumerate(frames):
        seen = field.render(frame.camera, behind, quick=quick)
        image = seen.color
        if quick:
            image = torch.cat([image, distance_colors(seen.distance, seen.opacity)], 1)
        path = folder / f"view_{index:03d}.png"
        save_image(image, path)
        yield Shown(index, len(frames) - 1, path)


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


def _metrics(field: SparseVoxels, camera: Camera, num_views: int, seconds: float) -> dict[str, Any]:
    return {
        "views": num_views,
        "height": camera.height,
        "width": camera.width,
        "voxels": field.table.num_voxels,
        "seconds_per_view": seconds,
    }


def _report(
    folder: Path,
    source: Path,
    shown: Sequence[Shown],
    route: Route,
    metrics: Mapping[str, Any],
    how: Sequence[str],
) -> None:
    chosen = [_small(load_image(view.path)) for view in _some(shown, REPORT_FRAMES)]
    caption = "color, and distance: near dark, far bright, empty blue" if route.quick else "new views"
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
    return pictures.png(pictures.to_bytes(smaller))


def _how(source: Path, route: Route, film: Film, background: Color | None, folder: Path) -> list[str]:
    """Write the command, and the lines of Python that make its first picture once more."""
    line = ["unrender", "render", str(source), *as_options(changes(route) | changes(film))]
    behind = None if background is None else f"torch.tensor({list(background)})"
    python = [
        *(["import torch"] if background is not None else []),
        "import unrender",
        "",
        f"field = unrender.load_field({str(source / VOLUME)!r})",
        f"frame = unrender.load_cameras({str(folder / CAMERAS)!r})[0]",
        f"seen = field.render(frame.camera, {behind}, quick={route.quick})",
        'unrender.save_image(seen.color, "view.png")',
    ]
    return [shlex.join(line), "\n".join(python)]
