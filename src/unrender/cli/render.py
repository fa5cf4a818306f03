"""unrender render: images and a video of a run, a Gaussian splat file or a volume."""

import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import tyro

from unrender._wording import counted
from unrender.cli.arguments import Device
from unrender.cli.confine import confinable
from unrender.data.camera_files import save_cameras
from unrender.devices import resolve_device
from unrender.errors import InputError
from unrender.fields.gaussians import GaussianField
from unrender.io.files import MissingFileError
from unrender.io.images import image_size, load_image, save_image
from unrender.io.splats import SPLAT_READERS
from unrender.io.video import save_video
from unrender.io.volumes import load_volume
from unrender.reports import render_report
from unrender.runs.folder import refuse_own_folder, start_run, write_metrics
from unrender.runs.options import as_arguments, changed_options
from unrender.runs.progress import run_steps, run_views
from unrender.runs.saved_run import CAMERAS, load_run, require_same_run
from unrender.runs.video_options import VideoOptions
from unrender.runs.views import (
    NUM_VIEWS,
    CameraModel,
    check_path,
    views_along,
    with_camera_model,
    with_size,
)
from unrender.tasks.render import field_views, volume_turntable
from unrender.tasks.render.field_views import QuickRender
from unrender.tasks.render.volume_turntable import VolumeOptions
from unrender.workers import current_workers

log = logging.getLogger("unrender")
FRAMES_PER_SECOND = 12.0
VOLUME_SIZE, BLACK = 512, (0.0, 0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class CameraPath:
    """Camera path of a run."""

    path: str = "auto"
    """orbit: a circle around the point the cameras look at.
    interpolate: a smooth path through the training cameras.
    spiral: a spiral in front of a forward-facing scene.
    test, train: the cameras of that split.
    FILE.json: a transforms.json, or a camera path of nerfstudio.
    auto: spiral for forward-facing scenes, interpolate for unbounded ones, else orbit."""
    camera_model: CameraModel = "auto"
    """equirectangular: 360° images, 1024 × 512 pixels by default, whose center is the direction of the view.
    auto: the camera model of the views."""


@confinable
def command(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|SPLATS|VOLUME")],
    /,
    video: VideoOptions = VideoOptions(),
    camera: CameraPath = CameraPath(),
    quick: QuickRender = QuickRender(),
    volume: VolumeOptions = VolumeOptions(),
    device: Device = "auto",
) -> None:
    """Render new views of a run or of Gaussian splats (ply, splat, spz), or a turntable of a volume (npy, nrrd, nii).

    Writes images, a video and a report.

    Examples:
        unrender render runs/chair --quick
        unrender render garden.ply
        unrender render head.nii.gz --window 150 900

    Args:
        source: Folder of a run of `unrender fit-volume` or `unrender fit-nerf`, a Gaussian splat or a volume file.
        video: Size and format of the results.
        camera: For a run or splats: the views to render.
        quick: For a run or splats: fast previews.
        volume: For a volume: transfer function and camera.
        device: Device: cpu, cuda or cuda:N. auto: the first NVIDIA GPU if NVIDIA Warp is installed, else cpu.
    """
    video.check()
    target = resolve_device(device)
    if not source.exists():
        raise MissingFileError(
            f"{source}: no such file or folder; give a run of `unrender fit-volume`, a Gaussian splat "
            "file, or a volume"
        )
    is_run = source.is_dir() or source.suffix.lower() in SPLAT_READERS
    inapplicable = changed_options(volume) if is_run else changed_options(camera, quick)
    if inapplicable:
        names = " ".join(f"--{name.replace('_', '-')}" for name in inapplicable)
        raise InputError(f"{source}: {names} does not apply to a {'run' if is_run else 'volume'}")
    if is_run:
        _render_run(source, camera, quick, video, target)
    else:
        _render_volume(source, volume, video, target)


def _render_run(
    source: Path, views_of: CameraPath, quick: QuickRender, video: VideoOptions, device: torch.device
) -> None:
    if (options := changed_options(quick)) and not quick.quick:
        raise InputError(f"{' '.join(as_arguments(options))}: applies to --quick only")
    quick.check()
    check_path(views_of.path)
    run, workers = load_run(source, device=device), current_workers()
    if isinstance(run.field, GaussianField) and (
        ignored := changed_options(dataclasses.replace(quick, quick=False))
    ):
        raise InputError(f"{source}: {' '.join(as_arguments(ignored))} does not apply to Gaussian splats")
    frames, longer = views_along(run, views_of.path, video.views), video.size
    frames = [with_camera_model(frame, views_of.camera_model) for frame in frames]
    require_same_run(run, frames, workers)
    if quick.quick and not longer:
        longer = workers.of_first(field_views.preview_size(run.field, frames[0].camera, quick))
    frames = [with_size(frame, longer) for frame in frames]
    refuse_own_folder(video.output, source)
    settings = {"run": source, **dataclasses.asdict(views_of), "quick": quick, "video": video}
    folder = start_run("render", source.resolve().name, video.output, settings, workers)
    background = run.background if video.background is None else video.background
    start = time.perf_counter()
    rendering = field_views.render_views(run.field, frames, background, folder, quick, workers)
    views = [view.frame for view in run_views(rendering, field_views.describe, workers)]
    if not workers.is_first:
        return
    seconds = (time.perf_counter() - start) / len(views)
    save_cameras(views, folder / CAMERAS, origin=run.origin)
    images = [view.image_path for view in views]
    video_file = _save_video(images, folder, video)
    first = frames[0].camera
    size = {"views": len(views), "height": first.height, "width": first.width}
    metrics = {**size, **run.field.describe(), "seconds_per_view": seconds}
    changed = changed_options(quick, video, views_of)
    how = render_report.reproduce_run(run, quick, background, folder, changed)
    caption = "color, and mean distance (near dark, far bright, empty blue)" if quick.quick else "new views"
    title = f"Views of {source.resolve().name}"
    render_report.write_render_report(folder / "report.html", title, caption, images, metrics, how)
    write_metrics(folder, metrics, len(frames) - len(views))
    print(f"{counted(len(views), 'view')}, {seconds:.2f} seconds per view")
    for file in (video_file, folder / "report.html"):
        if file is not None:
            print(file)


def _render_volume(source: Path, options: VolumeOptions, video: VideoOptions, device: torch.device) -> None:
    options.check()
    background = video.background or BLACK
    volume = load_volume(source, spacing=options.spacing, frame=options.frame).to(torch.float32).to(device)
    scene = volume_turntable.prepare_volume(volume, options)
    count, size = video.views or NUM_VIEWS, video.size or VOLUME_SIZE
    cameras = volume_turntable.turntable_cameras(scene, options, count, size)
    settings = {"volume": source, "options": options, "video": video}
    folder = start_run("render", source.name.split(".")[0], video.output, settings)
    start = time.perf_counter()
    rendering = volume_turntable.render_turntable(scene, cameras, options.step, background)
    views = run_steps(rendering, volume_turntable.describe)
    seconds = (time.perf_counter() - start) / len(views)
    images = [folder / f"view_{view.index:03d}.png" for view in views]
    for view, path in zip(views, images, strict=True):
        save_image(view.image, path)
    video_file = _save_video(images, folder, video)
    metrics = render_report.volume_metrics(scene) | {"seconds_per_view": seconds}
    changed = changed_options(options, video)
    how = render_report.reproduce_volume(source, options, background, cameras[0], changed)
    caption, title = f"turntable of {counted(len(images), 'view')}", f"Turntable of {source.name}"
    render_report.write_render_report(folder / "report.html", title, caption, images, metrics, how)
    write_metrics(folder, metrics, count - len(views))
    transfer = scene.transfer
    print(f"window {transfer.low:.5g} to {transfer.high:.5g}; {seconds:.2f} seconds per view")
    if video_file is not None:
        print(video_file)
    print(folder / "report.html")


def _save_video(images: Sequence[Path], folder: Path, video: VideoOptions) -> Path | None:
    """Encode the images; None if no video is requested or they differ in size."""
    if video.video == "none":
        return None
    if len({image_size(path) for path in images}) > 1:
        log.warning("no video: the views have different sizes")
        return None
    path = folder / f"video.{video.video}"
    save_video((load_image(image) for image in images), path, frames_per_second=FRAMES_PER_SECOND)
    return path
