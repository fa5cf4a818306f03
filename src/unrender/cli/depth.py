"""unrender depth: depth maps of a run."""

import dataclasses
import math
import time
from pathlib import Path
from typing import Literal

from unrender._wording import counted
from unrender.cli.arguments import Device, Run
from unrender.cli.confine import confinable
from unrender.data.depth_maps import DepthFiles
from unrender.data.frames import Frame
from unrender.devices import resolve_device
from unrender.errors import InputError
from unrender.io.depth_preview import Colormap
from unrender.reports.depth_report import depth_metrics, describe, measure_views, write_depth_report
from unrender.reports.reproduce import command_line
from unrender.runs import saved_run
from unrender.runs.folder import refuse_own_folder, start_run, write_metrics
from unrender.runs.options import changed_options, check_size, check_views
from unrender.runs.progress import run_views
from unrender.runs.views import (
    CameraModel,
    check_path,
    views_along,
    views_named,
    with_camera_model,
    with_size,
)
from unrender.workers import current_workers


@dataclasses.dataclass(frozen=True)
class DepthOptions:
    """Views and file formats."""

    path: str = "test"
    """Views to measure.
    test, train: the cameras of that split.
    orbit, interpolate, spiral, auto or a JSON file of cameras: as in `unrender render`."""
    names: tuple[str, ...] = ()
    """Names of single views, instead of --path."""
    camera_model: CameraModel = "auto"
    """equirectangular: 360° depth maps, 1024 × 512 pixels by default; z is then the distance along the ray.
    auto: the camera model of the views."""
    views: int | None = None
    """Number of views, evenly spaced. Default: all views of a split or a file, 36 along a camera path."""
    size: int | None = None
    """Longer side in pixels, up to 8192. Default: the size of the training images."""
    format: tuple[Literal["npy", "png16", "exr", "tiff"], ...] = ("npy",)
    """File formats in addition to npy. png16: integers in units of --scale. exr, tiff: floats."""
    scale: float = 0.001
    """World units per integer step of png16; 0.001 is a millimeter if the world unit is a meter."""
    colormap: Colormap = "viridis"
    """Colormap of the previews."""
    threshold: float = 0.25
    """Accumulated opacity at which the first surface is found, between 0 and 1."""
    min_opacity: float = 0.5
    """Minimum opacity of a valid depth, between 0 and 1."""
    output: Path | None = None
    """Output folder. Default: runs/depth/NAME-TIME."""

    def check(self) -> DepthFiles:
        """Raise InputError for values out of range; return the file formats."""
        check_path(self.path)
        check_views(self.views)
        check_size(self.size)
        if not self.scale > 0 or not math.isfinite(self.scale):
            raise InputError(f"--scale {self.scale}: must be positive")
        for name in ("threshold", "min_opacity"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise InputError(f"--{name.replace('_', '-')} {value}: must be between 0 and 1")
        return DepthFiles(
            tuple(name for name in dict.fromkeys(self.format) if name != "npy"), self.scale, self.colormap
        )


@confinable
def command(
    run: Run,
    /,
    depth: DepthOptions = DepthOptions(),
    device: Device = "auto",
) -> None:
    """Write depth maps of a run or of Gaussian splats: expected, median and first-surface depth, opacity, confidence.

    Each depth is written as z-depth and ray distance in world units, in a folder per view: depth/VIEW/median_z.npy, …

    Examples:
        unrender depth runs/chair
        unrender depth runs/garden --path train --format png16
        unrender depth garden.ply --path cameras.json

    Args:
        run: Folder of a run of `unrender fit-volume` or `unrender fit-nerf`, or a Gaussian splat file.
        depth: Views and file formats.
        device: Device: cpu, cuda or cuda:N. auto: the first NVIDIA GPU if NVIDIA Warp is installed, else cpu.
    """
    files = depth.check()
    saved = saved_run.load_run(run, device=resolve_device(device))
    frames = [with_size(frame, depth.size) for frame in _views(saved, depth)]
    refuse_own_folder(depth.output, run)
    settings, workers = {"run": run, "options": depth}, current_workers()
    saved_run.require_same_run(saved, frames, workers)
    folder = start_run("depth", run.resolve().name, depth.output, settings, workers)
    start = time.perf_counter()
    thresholds = (depth.threshold, depth.min_opacity)
    measured = measure_views(saved.field, frames, folder / "depth", files, thresholds, workers)
    views = run_views(measured, describe, workers)
    if not workers.is_first:
        return
    metrics = depth_metrics(views, (time.perf_counter() - start) / len(views))
    line = command_line("depth", [run], changed_options(depth))
    write_depth_report(folder / "report.html", saved, views, metrics, line)
    write_metrics(folder, metrics, len(frames) - len(views))
    if not metrics["valid_fraction"]:
        raise InputError(
            f"{run}: no surface in any view: no pixel is more than {depth.min_opacity:.0%} opaque; train longer, or "
            f"choose views of the object. The depth maps are in {folder / 'depth'}"
        )
    print(f"{counted(len(views), 'view')}, {metrics['valid_fraction']:.1%} of the pixels on a surface")
    print(folder / "depth")
    print(folder / "report.html")


def _views(run: saved_run.Run, depth: DepthOptions) -> list[Frame]:
    frames = views_named(run, depth.names) if depth.names else views_along(run, depth.path, depth.views)
    return [with_camera_model(frame, depth.camera_model) for frame in frames]
