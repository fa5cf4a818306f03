"""The report of a fitted field: test views, video, surface, metrics and training curves."""

import dataclasses
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence

from torch import Tensor

from unrender.data.frames import evenly_spaced
from unrender.data.scenes import Scene
from unrender.errors import InputError
from unrender.fields.protocol import HasDensityGrid
from unrender.fields.trainable import TrainableField
from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import interpolated_path, orbit_path
from unrender.geometry.mesh import Mesh
from unrender.geometry.world_origin import to_world
from unrender.io import save_cloud, save_mesh
from unrender.io.video import save_video
from unrender.reports import evaluation, figures
from unrender.reports.evaluation import Metrics, small_png
from unrender.reports.html import Figure, Section, write_report
from unrender.reports.reproduce import Name, call, construct, python_code, reproduce
from unrender.runs.field_run import FieldRun
from unrender.runs.folder import write_json
from unrender.runs.options import as_arguments, changed_options
from unrender.runs.progress import run_steps
from unrender.tasks.surface.extract_surface import cloud_from_mesh, extract_surface

log = logging.getLogger("unrender")
TEST_VIEWS = "test-views"
"""Folder of the rendered test views."""
MIN_SECONDS, MAX_FRACTION = 30.0, 0.25
"""By default, evaluation takes so long, or this fraction of the training time if that is longer."""
NUM_FRAMES, FRAMES_PER_SECOND = 48, 12.0
VIDEO_SIZE = 400
"""Longer side of the video in pixels, at most."""
FRAMES_IN_REPORT = 12


def finish(
    run: FieldRun, field: TrainableField, training: Metrics, curves: str, *, is_stopped: bool = False
) -> None:
    """Evaluate a field on the test views, render a video and write metrics and report; Ctrl-C skips what is left.

    training: metrics of the training, `seconds` among them. curves: an SVG. is_stopped: whether training ended early;
    then the evaluation is short.
    """
    frames, views_asked = run.scene.split("test"), run.evaluation.views
    if isinstance(views_asked, int):
        frames = tuple(evenly_spaced(frames, views_asked))
    seconds = None if views_asked else max(MIN_SECONDS, training["seconds"] * MAX_FRACTION)
    seconds = MIN_SECONDS if is_stopped else seconds
    _report_training(run, field, training, curves)
    evaluated = evaluation.evaluate_views(
        field, frames, run.background, run.folder / TEST_VIEWS, seconds=seconds
    )
    views = run_steps(evaluated, evaluation.describe, allow_empty=True)
    metrics = evaluation.mean_metrics(views) | training | field.describe()
    metrics |= {"peak_memory_mib": _peak_memory()} | evaluation.metrics_by_view(views)
    write_json(run.folder / "metrics.json", metrics)
    protocol = evaluation.protocol_text(evaluation.protocol(frames, views, run.background))
    shown = [figure for view in views for figure in view.figures]
    _report(run, metrics, protocol, shown, curves)  # before the rest, which can take long
    video = _video(run, field) if run.evaluation.video else []
    surface = _surface(run, field) if run.evaluation.mesh else []
    _report(run, metrics, protocol, [*shown, *video, *surface], curves)
    print(_summary(run, metrics))
    print(run.field_file)
    print(run.folder / "report.html")


def _report_training(run: FieldRun, field: TrainableField, training: Metrics, curves: str) -> None:
    """Write metrics and report of the training alone: they stay if the evaluation is killed."""
    metrics = evaluation.mean_metrics([]) | training | field.describe()
    write_json(run.folder / "metrics.json", metrics)
    _report(run, metrics, "Not evaluated yet.", [], curves)


def _report(run: FieldRun, metrics: Metrics, protocol: str, shown: Sequence[Figure], curves: str) -> None:
    means = {name: value for name, value in metrics.items() if "/" not in name}
    sections = [
        Section("Results", _summary(run, metrics), shown, columns=evaluation.FIGURES_PER_VIEW),
        Section("Metrics", protocol, table=means),
        Section("Training curves", svg=curves),
        reproduce(fit_command(run), _code(run)),
    ]
    write_report(run.folder / "report.html", report_title(run), sections)


def report_title(run: FieldRun) -> str:
    """Return the title of the report."""
    kind = "Volume" if run.task == "fit-volume" else "Radiance field"
    return f"{kind} of {run.scene.name}"


def fit_command(run: FieldRun) -> str:
    """Return the command line that repeats a run."""
    options = changed_options(run.config, run.evaluation) | {"depth_scale": run.depth_scale}
    return shlex.join(["unrender", run.task, str(run.source), *as_arguments(options)])


def _summary(run: FieldRun, metrics: Metrics) -> str:
    text = evaluation.summary(run.scene.name, metrics, num_views=len(run.scene.split("test")))
    return f"{text}; trained for {metrics['seconds']:.0f} s" if metrics["num_evaluated_views"] else text


def _peak_memory() -> float | None:
    """Return the peak memory of the process in MiB; None where the system does not report it."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


@dataclasses.dataclass(frozen=True)
class VideoFrame:
    """A frame of the video."""

    index: int
    last_index: int
    color: Tensor


def _video(run: FieldRun, field: TrainableField) -> list[Figure]:
    """Render and save the video."""
    rendered = _render_frames(field, run.background, _video_cameras(run.scene, field))
    taken = run_steps(rendered, lambda f: f"rendering frame {f.index + 1} of {NUM_FRAMES}", allow_empty=True)
    if not taken:
        return []
    frames = [frame.color for frame in taken]
    save_video(iter(frames), run.folder / "video.mp4", frames_per_second=FRAMES_PER_SECOND)
    few = evenly_spaced(frames, FRAMES_IN_REPORT)
    caption = "camera path" if field.scene_box.contracted else "turntable"
    return [Figure(caption, [small_png(frame) for frame in few])]


def _render_frames(
    field: TrainableField, background: Tensor | None, cameras: Sequence[Camera]
) -> Iterator[VideoFrame]:
    for index, camera in enumerate(cameras):
        yield VideoFrame(index, len(cameras) - 1, field.render(camera, background, quick=True).color)


def _video_cameras(scene: Scene, field: TrainableField) -> list[Camera]:
    """Orbit a bounded field; follow a path between the training cameras of an unbounded one."""
    cameras = [frame.camera for frame in scene.split("train")]
    size = max(2, min(VIDEO_SIZE, max(cameras[0].height, cameras[0].width)))
    path = (
        interpolated_path(cameras, NUM_FRAMES, order="nearest")
        if field.scene_box.contracted
        else orbit_path(cameras, NUM_FRAMES)
    )
    return [path[i].resize_longest(size) for i in range(NUM_FRAMES)]


def _surface(run: FieldRun, field: TrainableField) -> list[Figure]:
    """Write the surface of a voxel volume as a mesh and a point cloud; warn if it has none."""
    if not isinstance(field, HasDensityGrid):
        return []
    try:
        mesh = extract_surface(field)
    except InputError as error:
        log.warning("no mesh: %s (`unrender export --to mesh --method density`)", error)
        return []
    origin = field.scene_box.origin
    save_mesh(to_world(mesh, origin), run.folder / "mesh.ply")
    save_cloud(to_world(cloud_from_mesh(mesh), origin), run.folder / "cloud.ply")
    return [_mesh_figure(mesh, run.scene, field)]


def _mesh_figure(mesh: Mesh, scene: Scene, field: TrainableField) -> Figure:
    cameras = evenly_spaced(_video_cameras(scene, field), FRAMES_IN_REPORT)
    images = [figures.png(figures.render(mesh, camera)) for camera in cameras]
    return Figure(f"extracted surface, {len(mesh.faces):,} faces", images)


def _code(run: FieldRun) -> str:
    function = f"unrender.{run.task.replace('-', '_')}"
    loading = {} if run.depth_scale is None else {"depth_scale": run.depth_scale}
    return python_code(
        f"scene = {call('unrender.load_scene', run.source, keywords=loading)}",
        f"for step in {call(function, Name('scene'), construct(run.config))}:",
        "    print(step.index, step.losses)",
        f'unrender.save_field(step.result, "{run.field_file.name}")',
        "output = step.result.render(scene.frames[0].camera)",
        'unrender.save_image(output.color, "view.png")',
    )
