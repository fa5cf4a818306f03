"""unrender fit-surface: a mesh from photos."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from unrender.cli.arguments import Device, File, Folder, Source
from unrender.cli.confine import confinable
from unrender.data.frames import Frame, evenly_spaced
from unrender.data.scenes import Scene, load_scene
from unrender.devices import resolve_device
from unrender.errors import InputError
from unrender.fields.protocol import RenderedField
from unrender.fields.trainable import TrainableField
from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import interpolated_path, orbit_path
from unrender.geometry.mesh import Mesh
from unrender.geometry.world_origin import ZERO
from unrender.io.files import MissingFileError
from unrender.render.texture import Texture
from unrender.reports.html import Section
from unrender.reports.reproduce import Name, call, command_line, construct, python_code, reproduce
from unrender.reports.surface_report import NUM_FRAMES, FittedSurface, summary, write_surface_report
from unrender.runs.depth_sources import kind_of_source
from unrender.runs.field_run import EvaluationOptions
from unrender.runs.folder import METRICS, refuse_own_folder, start_run, write_curves, write_json
from unrender.runs.options import changed_options
from unrender.runs.progress import RecordedSteps, run_steps
from unrender.runs.saved_run import Run, load_run, saved_depth_scale
from unrender.runs.start_fit import start_fit
from unrender.runs.surface_files import SurfaceFiles, SurfaceWriter, texture_metrics, texture_steps
from unrender.tasks.nerf.config import FitNerf
from unrender.tasks.nerf.fit_nerf import fit_nerf
from unrender.tasks.surface.config import FitSurface
from unrender.tasks.surface.config import check as check_fit
from unrender.tasks.surface.fit_surface import (
    DEFAULT_MINUTES,
    FitSurfaceStep,
    compensates_exposure,
    fit_surface,
)
from unrender.tasks.surface.measure_surface import SurfaceView, compare_views, measure_shape
from unrender.tasks.surface.photo_views import load_photo_views
from unrender.training.checkpoints import CHECKPOINT
from unrender.training.saved_fields import save_field
from unrender.training.step import TrainingStep

TASK = "fit-surface"
MAX_CURVE_POINTS = 500
FIELD_MINUTES, TEST_VIEWS = 5.0, 25
FIELD_FOLDER = "field"
"""Folder of the run of fit-nerf that trains the field of a scene."""
MIN_SECONDS = 0.1
"""What is left for the surface of a budget that is too small."""
SURFACE_UNTIL, TEXTURE_UNTIL, EVALUATION_UNTIL = 0.55, 0.85, 0.95
"""Fractions of a budget in minutes after which the surface, the texture, and the evaluation of test views are done."""


@dataclasses.dataclass(frozen=True)
class _Record:
    """What is kept of a step."""

    index: int
    last_index: int
    stage: str
    losses: dict[str, float]


@confinable
def command(
    source: Source,
    /,
    fit: FitSurface = FitSurface(),
    files: SurfaceFiles = SurfaceFiles(),
    field_minutes: float = FIELD_MINUTES,
    test_views: int = TEST_VIEWS,
    scene: File = None,
    output: Folder = None,
    device: Device = "auto",
) -> int:
    """Fit a textured mesh to photos: the surface of a field, refined by differentiable rendering.

    Examples:
        unrender fit-surface runs/chair
        unrender fit-surface chair/ --faces 100000 --format glb obj

    Args:
        source: Folder of a run of `fit-nerf` or `fit-volume`, or a scene of posed images.
        fit: How the surface is fitted.
        files: What is written.
        field_minutes: Scenes: training budget of the radiance field in minutes.
        test_views: Maximum number of test views to evaluate, evenly spaced; with a budget in minutes, as many as fit.
        scene: Runs: path of the scene, if it has been moved.
        output: Output folder. Default: runs/fit-surface/NAME-TIME.
        device: Device: cpu, cuda or cuda:N. auto: the first NVIDIA GPU if NVIDIA Warp is installed, else cpu.
    """
    _check(source, fit, files, test_views, output)
    others = {"field_minutes": field_minutes, "test_views": test_views, "scene": scene}
    target = resolve_device(device)
    run = load_run(source, device=target) if _is_run(source, others) else None
    loaded = _with_image_planes(load_scene(source) if run is None else _scene_of(run, scene))
    settings = {"source": source, "config": fit, "files": files} | others
    folder = start_run(TASK, source.resolve().name, output, settings)
    lines = _Reproduction(source, fit, files, others)
    field = _train(source, field_minutes, target, folder, lines) if run is None else run.field
    job = _Job(loaded, field, fit, files, folder)
    turntable = job.turntable()  # raises an error if all cameras share one position
    last, series = job.surface()
    texture, baked = job.texture(last)
    writer = job.writer(last.result, texture)
    paths = writer.save_mesh()
    views = job.evaluate(last.result, texture, test_views)
    write_curves(folder, series)
    how = reproduce(lines.command_line(), _code(run, job, field_minutes))
    results = _Results(job, last, texture, turntable, views, _metrics(last, views) | baked, series, how)
    return results.finish(writer, paths)


@dataclasses.dataclass(frozen=True)
class _Reproduction:
    """The options of the command."""

    source: Path
    fit: FitSurface
    files: SurfaceFiles
    others: dict[str, Any]

    def command_line(self, output: Path | None = None) -> str:
        """Return the command that does the same; with `output`, in a folder."""
        defaults = {"field_minutes": FIELD_MINUTES, "test_views": TEST_VIEWS}
        changed = {name: value for name, value in self.others.items() if value != defaults.get(name)}
        options = changed_options(self.fit, self.files) | changed
        return command_line(TASK, [self.source], options | ({} if output is None else {"output": output}))


def _check(source: Path, fit: FitSurface, files: SurfaceFiles, test_views: int, output: Path | None) -> None:
    """Raise InputError for options out of range, before anything is trained."""
    if not source.exists():
        raise MissingFileError(f"{source}: no such folder; give a run of fit-nerf or fit-volume, or a scene")
    refuse_own_folder(output, source)
    check_fit(fit)
    files.check()
    if test_views < 0:
        raise InputError(f"--test-views {test_views}: must be at least 0")


def _is_run(source: Path, options: dict[str, Any]) -> bool:
    """Tell a run from a scene; raise InputError for options that apply to the other only."""
    is_run = kind_of_source(source) == "run"
    if is_run and options["field_minutes"] != FIELD_MINUTES:
        raise InputError("--field-minutes does not apply to a run: its field is trained already")
    if not is_run and options["scene"] is not None:
        raise InputError(f"--scene does not apply to {source}: it is not a run")
    return is_run


@dataclasses.dataclass(frozen=True)
class _Job:
    """What is fitted, and where the results go."""

    scene: Scene
    field: RenderedField
    fit: FitSurface
    files: SurfaceFiles
    folder: Path
    start: float = dataclasses.field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float | None:
        """The budget of the whole job, if it is one in minutes."""
        if self.fit.steps is not None and self.fit.minutes is None:
            return None
        return 60 * (DEFAULT_MINUTES if self.fit.minutes is None else self.fit.minutes)

    def left(self, fraction: float) -> float | None:
        """Return the seconds until a fraction of the budget is spent."""
        return None if self.seconds is None else self.start + fraction * self.seconds - time.perf_counter()

    def surface(self) -> tuple[FitSurfaceStep, dict[str, list[float]]]:
        """Fit the mesh; return the last step, and the curves of the losses."""
        left = self.left(SURFACE_UNTIL)
        fit = self.fit if left is None else dataclasses.replace(self.fit, minutes=max(left, MIN_SECONDS) / 60)
        recorded = RecordedSteps(fit_surface(self.scene, self.field, fit), _record)
        series = _series(run_steps(recorded, _describe, has_result=lambda step: step.stage != "depth"))
        return recorded.last, series

    def texture(self, last: FitSurfaceStep) -> tuple[Texture | None, dict[str, Any]]:
        """Compute the texture, if one is requested, and its metrics; a signal keeps the texture so far.

        After a refinement that was stopped, the texture is not refined either.
        """
        if self.files.colors == "vertex":
            return None, {}
        mesh, files = last.result, self.files
        if last.index < last.last_index:
            files = dataclasses.replace(files, texture_steps=0)
        photos = load_photo_views(self.scene.split("train"), self.fit.image_size)
        exposure = compensates_exposure(self.fit, self.field)
        steps = RecordedSteps(
            texture_steps(mesh, photos, files, exposure=exposure, seconds=self.left(TEXTURE_UNTIL)),
            lambda step: _Record(step.index, step.last_index, f"texture: {step.stage}", {}),
        )
        try:
            run_steps(steps, _describe)
        except (InputError, KeyboardInterrupt):
            self.writer(mesh, None).save_mesh()  # with vertex colors
            raise
        atlas, baked = steps.last.atlas, steps.last.baked
        if atlas is None or baked is None:
            return None, {}
        return baked.texture, texture_metrics(atlas, baked)

    def writer(self, mesh: Mesh, texture: Texture | None) -> SurfaceWriter:
        """Return what writes the files."""
        cameras = [frame.camera for frame in self.scene.split("train")]
        box = self.field.scene_box
        orbit = not box.contracted and len(cameras) > 1
        on_cpu = None if texture is None else texture.to("cpu")
        return SurfaceWriter(self.folder, mesh.to("cpu"), on_cpu, self.files, cameras, orbit, box.origin)

    def evaluate(self, mesh: Mesh, texture: Texture | None, count: int) -> list[SurfaceView]:
        """Compare test views with their photos; the time of the first one decides how many fit into the budget."""
        test = evenly_spaced(self.scene.split("test"), count) if count else []
        begin = time.perf_counter()
        views = self._compare(mesh, texture, test[:1])
        left = self.left(EVALUATION_UNTIL)
        if left is not None and views:
            fitting = 1 + int(left / (time.perf_counter() - begin))
            test = evenly_spaced(test, max(1, fitting))
        return views + self._compare(mesh, texture, test[1:])

    def _compare(self, mesh: Mesh, texture: Texture | None, frames: Sequence[Frame]) -> list[SurfaceView]:
        views = compare_views(mesh, frames, texture, size=self.fit.image_size)
        return run_steps(views, _describe_view, allow_empty=True)

    def turntable(self) -> list[Camera]:
        """Orbit a bounded scene; follow a path between the training cameras of an unbounded one."""
        cameras = [frame.camera.replace(lens=None) for frame in self.scene.split("train")]
        path = (
            interpolated_path(cameras, NUM_FRAMES, order="nearest")
            if self.field.scene_box.contracted or len(cameras) < 2
            else orbit_path(cameras, NUM_FRAMES)
        )
        return [path[i] for i in range(NUM_FRAMES)]


@dataclasses.dataclass(frozen=True)
class _Results:
    """What is written beside the mesh."""

    job: _Job
    last: FitSurfaceStep
    texture: Texture | None
    turntable: Sequence[Camera]
    views: Sequence[SurfaceView]
    metrics: dict[str, Any]
    series: dict[str, list[float]]
    how: Section

    def finish(self, writer: SurfaceWriter, paths: Sequence[Path]) -> int:
        """Write metrics and report, then the extras, and list all files; return the exit status, 1 if some failed."""
        report = self.write(())
        extras = writer.save_extras()
        if extras.failures:
            self.write(extras.failures)
        notes = (*self.last.notes, *extras.failures)
        print(summary(self.metrics, notes), *paths, *extras.paths, report, sep="\n")
        return 1 if extras.failures else 0

    def write(self, failures: Sequence[str]) -> Path:
        """Write metrics and report, with what failed; return the path of the report."""
        notes, folder = (*self.last.notes, *failures), self.job.folder
        metrics = self.metrics | {"notes": list(notes), "seconds": time.perf_counter() - self.job.start}
        write_json(folder / METRICS, metrics)
        found = FittedSurface(self.last.result, self.texture, self.turntable, self.views, metrics, notes)
        report = folder / "report.html"
        write_surface_report(report, f"Surface of {self.job.scene.name}", found, self.series, self.how)
        return report


def _scene_of(run: Run, scene: Path | None) -> Scene:
    """Load the scene that a field was trained on, in the frame of the field."""
    return load_scene(run.scene_path(scene), origin=run.origin, depth_scale=saved_depth_scale(run.folder))


def _with_image_planes(scene: Scene) -> Scene:
    """Return a scene; InputError for 360° images, before a field is trained on them."""
    if any(frame.camera.projection == "equirectangular" for frame in scene.frames):
        raise InputError(
            f"{scene.folder}: 360° images cannot be projected onto a mesh; split them into perspective views with "
            "`unrender import SCENE --output NEW`"
        )
    return scene


def _train(
    source: Path, minutes: float, device: torch.device, folder: Path, lines: _Reproduction
) -> TrainableField:
    """Train a radiance field, as a run of fit-nerf in the folder; continue one that was stopped.

    A signal saves the field so far, and ends the command.
    """
    training, options = FitNerf(minutes=minutes, device=str(device)), EvaluationOptions(views=1, video=False)
    inner = folder / FIELD_FOLDER
    resume = inner if (inner / CHECKPOINT).is_file() else None
    run, steps = start_fit("fit-nerf", fit_nerf, source, training, options, resume=resume, output=inner)
    recorded = RecordedSteps(steps, lambda step: step)
    run_steps(iter(recorded), _describe_training)
    recorded.close()
    field: TrainableField = recorded.last.result
    save_field(field, run.field_file)
    if not recorded.is_finished:
        print(f"continue with: {lines.command_line(folder)}", flush=True)
        raise KeyboardInterrupt
    return field


def _describe_training(step: TrainingStep[Any]) -> str:
    return f"training a radiance field, step {step.index}"


def _describe(record: _Record) -> str:
    error = record.losses.get("photometric")
    text = {"depth": "rendering depth", "initial": "extracting the surface"}.get(record.stage, record.stage)
    return text if error is None else f"{text}  color difference {error:.4f}"


def _describe_view(view: SurfaceView) -> str:
    return f"evaluating test view {view.index + 1} of {view.last_index + 1}"


def _record(step: FitSurfaceStep) -> _Record:
    return _Record(step.index, step.last_index, step.stage, step.losses)


def _metrics(last: FitSurfaceStep, views: Sequence[SurfaceView]) -> dict[str, Any]:
    metrics: dict[str, Any] = measure_shape(last.result)
    metrics |= {"steps": last.num_steps, "num_evaluated_views": len(views)}
    for name in ("psnr", "ssim", "coverage"):
        values = [view.metrics[name] for view in views if name in view.metrics]
        metrics[name] = sum(values) / len(values) if values else None
    return metrics | {f"psnr/{view.name}": view.metrics.get("psnr") for view in views}


def _series(records: Sequence[_Record]) -> dict[str, list[float]]:
    """Return the curve of each loss, averaged over parts of the refinement."""
    steps = [record.losses for record in records if record.losses]
    size = max(1, len(steps) // MAX_CURVE_POINTS)
    series: dict[str, list[float]] = {}
    for begin in range(0, len(steps), size):
        part = steps[begin : begin + size]
        for name in part[0]:
            values = [losses[name] for losses in part if name in losses]
            series.setdefault(name, []).append(sum(values) / len(values))
    return series


def _code(run: Run | None, job: _Job, field_minutes: float) -> str:
    """Write the Python code of the mesh and its texture."""
    origin = {} if job.field.scene_box.origin == ZERO else {"origin": Name("field.scene_box.origin")}
    if run is not None:
        loading = [
            f"field = {call('unrender.load_field', run.field_file)}",
            f"scene = {call('unrender.load_scene', job.scene.folder, keywords=origin)}",
        ]
    else:
        training = construct(FitNerf(minutes=field_minutes))
        loading = [
            f"scene = {call('unrender.load_scene', job.scene.folder)}",
            f"*_, trained = {call('unrender.fit_nerf', Name('scene'), training)}",
            "field = trained.result",
        ]
    return python_code(
        *loading,
        f"for step in {call('unrender.fit_surface', Name('scene'), Name('field'), construct(job.fit))}:",
        "    print(step.index, step.stage, step.losses)",
        *(
            _texture_code(job)
            if job.files.colors == "texture"
            else ['unrender.save_mesh(step.result, "mesh.glb")']
        ),
    )


def _texture_code(job: _Job) -> list[str]:
    size, exposure = job.files.texture_size, compensates_exposure(job.fit, job.field)
    refining = {"refine_steps": job.files.texture_steps} | ({"exposure": True} if exposure else {})
    mesh, photos = Name("step.result"), Name("photos")
    return [
        f'photos = unrender.load_photo_views(scene.split("train"), {job.fit.image_size})',
        f"atlas = {call('unrender.unwrap', mesh, keywords={'texture_size': size})}",
        f"baked = {call('unrender.bake_texture', mesh, Name('atlas'), photos, keywords=refining)}",
        'unrender.save_textured_mesh(step.result, baked.texture, "mesh.glb")',
    ]
