"""What follows once a field is learned: held-out views, a film, a surface, figures and a report."""

import dataclasses
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrender._version import __version__
from unrender.data.camera_files import save_cameras
from unrender.data.scenes import Scene
from unrender.errors import InputError
from unrender.fields.protocol import RadianceField
from unrender.fields.voxels import SparseVoxels
from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import interpolated_path, orbit_path
from unrender.geometry.mesh import Mesh
from unrender.io import save_cloud, save_mesh
from unrender.io.video import save_video
from unrender.reports import evaluation, figures
from unrender.reports.evaluation import Metrics, evenly, small_png
from unrender.reports.html import Picture, Section, write_report
from unrender.runs.folder import as_options, changes, write_json
from unrender.runs.progress import take_some
from unrender.runs.saved_run import CAMERAS, CONFIG, FIELD_FILES, as_color, describe_field
from unrender.tasks.surface.extract_surface import cloud_of_surface, extract_surface

log = logging.getLogger("unrender")
LOOKED_AT = 8
"""Photos, to see whether they are transparent."""
FILM_FRAMES, FRAMES_PER_SECOND = 48, 12.0
FILM_SIDE = 400
"""Pixels of the film's longer side, at most."""
REPORT_FRAMES = 12


@dataclasses.dataclass(frozen=True)
class After:
    """What to make of the field once it is learned."""

    views: int | None = None
    """How many of the held-out frames to compare it with, as far apart as possible. By default all."""
    film: bool = True
    """Whether to make the film."""
    mesh: bool = True
    """Whether to write the surface of voxels as a mesh and as a cloud; `unrender export` makes them of any field."""


@dataclasses.dataclass(frozen=True)
class FieldRun:
    """A run that learns a field: from what, where to, and what is to follow."""

    task: str
    source: Path
    """Where the scene was asked for."""
    scene: Scene
    config: Any
    after: After
    folder: Path
    behind: Tensor | None
    """What is behind results: None is the color that was learned."""

    @property
    def field_file(self) -> Path:
        """Where the field is saved."""
        return self.folder / FIELD_FILES[self.task]

    def begin(self) -> None:
        """Write what was asked for, and where the photos stood."""
        inputs = {
            "scene": self.source.resolve(),
            "config": self.config,
            "background": as_color(self.behind),
            "held_out": [frame.name for frame in self.scene.split("test")],
            "after": self.after,
        }
        write_json(self.folder / CONFIG, {"unrender": __version__, "task": self.task} | inputs)
        save_cameras(self.scene.frames, self.folder / CAMERAS)

    @property
    def title(self) -> str:
        """Of the report."""
        kind = "Volume" if self.task == "fit-volume" else "Radiance field"
        return f"{kind} from {self.scene.name}"

    def command(self, *more: str) -> str:
        """Write the command that does the same once more."""
        given = as_options(changes(self.config) | changes(self.after))
        return shlex.join(["unrender", self.task, str(self.source), *given, *more])


def check_after(after: After) -> None:
    """Refuse what cannot be made, before anything is read."""
    if after.views is not None and after.views < 1:
        raise InputError(f"--views {after.views}: should be at least 1")


def color_behind(background: str, scene: Scene) -> Tensor | None:
    """Return what is behind results, white unless black was asked for; of photos without transparency, nothing."""
    for frame in evenly(scene.split("train"), LOOKED_AT):
        alpha = frame.load().alpha
        if alpha is not None and bool((alpha < 1).any()):
            return torch.full((3,), 0.0 if background == "black" else 1.0)
    return None


def finish(run: FieldRun, field: RadianceField, learned: Metrics, how_it_went: str) -> None:
    """Compare a field to the held-out frames, go around it, and write all there is to say; Ctrl-C shortens each part.

    learned: figures of the fit, `seconds` among them; how_it_went: an SVG.
    """
    frames = evenly(run.scene.split("test"), run.after.views)
    compared = evaluation.evaluate_frames(field, frames, run.behind, run.folder / "held-out")
    views = take_some(compared, evaluation.progress_words)
    metrics = evaluation.mean_metrics(views) | learned | describe_field(field)
    metrics |= {"peak_memory_mib": _peak_memory()} | evaluation.metrics_of_views(views)
    write_json(run.folder / "metrics.json", metrics)
    how = evaluation.protocol_words(evaluation.protocol(frames, views, run.behind))
    shown = [picture for view in views for picture in view.pictures]
    _report(run, metrics, how, shown, how_it_went)  # before the rest, which can take long
    around = _film(run, field) if run.after.film else []
    surface = _surface(run, field) if run.after.mesh else []
    _report(run, metrics, how, [*around, *shown, *surface], how_it_went)
    print(_verdict(run, metrics))
    print(run.field_file)
    print(run.folder / "report.html")


def _report(run: FieldRun, metrics: Metrics, how: str, shown: Sequence[Picture], how_it_went: str) -> None:
    single = {name for name in metrics if "/" in name}
    sections = [
        Section("What came out", _verdict(run, metrics), shown),
        Section("Figures", how, figures={name: metrics[name] for name in metrics if name not in single}),
        Section("How it went", svg=how_it_went),
        Section("Do it again", code=[run.command(), _python(run)]),
    ]
    write_report(run.folder / "report.html", run.title, sections)


def _verdict(run: FieldRun, metrics: Metrics) -> str:
    words = evaluation.verdict(run.scene.name, metrics)
    return f"{words}; {metrics['seconds']:.0f} s of fitting." if metrics["num_held_out"] else words


def _peak_memory() -> float | None:
    """Return the most memory that the process has held, in MiB; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


@dataclasses.dataclass(frozen=True)
class FilmFrame:
    """A picture on the way around."""

    index: int
    last_index: int
    color: Tensor


def _film(run: FieldRun, field: RadianceField) -> list[Picture]:
    """Go around the field."""
    views = _go(field, run.behind, _film_cameras(run.scene, field))
    taken = take_some(views, lambda view: f"film {view.index + 1} of {FILM_FRAMES}")
    if not taken:
        return []
    frames = [view.color for view in taken]
    save_video(iter(frames), run.folder / "turntable.mp4", frames_per_second=FRAMES_PER_SECOND)
    few = frames[:: max(1, len(frames) // REPORT_FRAMES)]
    return [Picture("on the way around", [small_png(frame) for frame in few])]


def _go(field: RadianceField, behind: Tensor | None, cameras: Sequence[Camera]) -> Iterator[FilmFrame]:
    for index, camera in enumerate(cameras):
        yield FilmFrame(index, len(cameras) - 1, field.render(camera, behind, quick=True).color)


def _film_cameras(scene: Scene, field: RadianceField) -> list[Camera]:
    """Go around what has an end; in what has none, between the photos."""
    cameras = [frame.camera for frame in scene.split("train")]
    first = cameras[0]
    scale = min(1.0, FILM_SIDE / max(first.height, first.width))
    height, width = (max(2, round(side * scale)) for side in (first.height, first.width))
    path = (
        interpolated_path(cameras, FILM_FRAMES, order="nearest")
        if field.contracted
        else orbit_path(cameras, FILM_FRAMES)
    )
    return [path[i].resize(height, width) for i in range(FILM_FRAMES)]


def _surface(run: FieldRun, field: RadianceField) -> list[Picture]:
    """Write the surface as a mesh and as a cloud, and show it; a field without one is no error."""
    if not isinstance(field, SparseVoxels):
        return []
    try:
        mesh = extract_surface(field)
    except InputError as error:
        log.warning("no mesh: %s", error)
        return []
    save_mesh(mesh, run.folder / "mesh.ply")
    save_cloud(cloud_of_surface(mesh), run.folder / "cloud.ply")
    return [_mesh_picture(mesh, run.scene, field)]


def _mesh_picture(mesh: Mesh, scene: Scene, field: RadianceField) -> Picture:
    cameras = _film_cameras(scene, field)[:: FILM_FRAMES // REPORT_FRAMES]
    frames = [figures.png(figures.show(mesh, camera)) for camera in cameras]
    return Picture(f"its surface, {len(mesh.faces):,} faces", frames)


def _python(run: FieldRun) -> str:
    """Write the lines of Python that do the same once more."""
    spelled = ", ".join(f"{name}={value!r}" for name, value in changes(run.config).items())
    function, config = run.task.replace("-", "_"), type(run.config).__name__
    lines = [
        "import unrender",
        "",
        f"scene = unrender.load_scene({str(run.source)!r})",
        f"for step in unrender.{function}(scene, unrender.{config}({spelled})):",
        "    print(step.index, step.losses)",
        f'unrender.save_field(step.result, "{run.field_file.name}")',
        "seen = step.result.render(scene.frames[0].camera)",
        'unrender.save_image(seen.color, "view.png")',
    ]
    return "\n".join(lines)
