"""unrender export: a point cloud or a mesh from a run or from depth images."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any, Literal

from unrender._wording import counted
from unrender.cli.arguments import Device, Source
from unrender.cli.confine import confinable
from unrender.data.frames import Frame
from unrender.devices import resolve_device
from unrender.errors import InputError
from unrender.fields.gaussians import GaussianField
from unrender.fields.trainable import TrainableField
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.geometry.world_origin import ZERO, to_world
from unrender.io.clouds import save_cloud
from unrender.io.files import MissingFileError
from unrender.io.meshes import save_mesh
from unrender.render.depth import DepthView
from unrender.reports import shape_report
from unrender.reports.reproduce import command_line
from unrender.runs.depth_sources import (
    LoadedView,
    frames_to_render,
    kind_of_source,
    load_source_views,
    render_source_views,
)
from unrender.runs.folder import refuse_own_folder, start_run, write_metrics
from unrender.runs.options import changed_options, check_size, check_views
from unrender.runs.saved_run import Run, load_run, require_same_run
from unrender.tasks.depth.fuse_depths import fuse_depths, points_from_views
from unrender.tasks.surface.extract_surface import extract_surface, surface_density
from unrender.workers import current_workers

SINGULAR = {"vertices": "vertex", "faces": "face", "points": "point", "views": "view"}
RENDERED = "rendered"
"""Folder of the views that are rendered, while there is no result."""
FORMATS = {"points": ("ply", "xyz", "pcd", "npz"), "mesh": ("ply", "obj", "glb")}


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Point clouds and meshes."""

    to: Literal["points", "mesh"] = "points"
    """points: a point cloud with normals and colors, filtered by multi-view consistency.
    mesh: a surface with vertex colors."""
    format: str = "ply"
    """File format: ply, xyz, pcd or npz for points; ply, obj or glb for a mesh."""
    method: Literal["depth", "density"] = "depth"
    """Mesh from depth: TSDF fusion of depth images. From density: a level set of the density of a run's field."""
    views: int = 100
    """Maximum number of depth images to fuse, evenly spaced; at least 2."""
    size: int | None = None
    """Runs: longer side of the rendered depth images in pixels. Default: the size of the training images."""
    tolerance: float = 0.01
    """Points: largest relative depth difference at which two views are consistent."""
    min_consistent_views: int = 2
    """Points: minimum number of other views that have to be consistent with a point."""
    depth_scale: float | None = None
    """Scenes: world units per unit of the depth images. Default: checked against points and cameras."""
    spacing: float | None = None
    """Points: voxel size of the downsampling in world units. Default: keep all points."""
    voxel_size: float | None = None
    """Mesh: voxel size in world units. Default: 1/192 of the longest side; the voxel size of a volume."""
    opacity: float = 0.5
    """Mesh from density: the opacity of one voxel at which the surface is extracted, between 0 and 1."""
    output: Path | None = None
    """Output folder. Default: runs/export/NAME-TIME."""

    def check(self) -> None:
        """Raise InputError for values out of range and for options that exclude each other."""
        if self.format not in FORMATS[self.to]:
            raise InputError(f"--format {self.format}: must be one of {', '.join(FORMATS[self.to])}")
        check_views(self.views, minimum=2)
        check_size(self.size)
        if self.to == "points" and (self.method, self.voxel_size) != ("depth", None):
            raise InputError("--method density and --voxel-size apply to --to mesh only")
        if not 0 < self.opacity < 1:
            raise InputError(f"--opacity {self.opacity}: must be between 0 and 1")
        if self.method == "depth" and "opacity" in changed_options(self):
            raise InputError("--opacity applies to --method density only")


@confinable
def command(
    source: Source,
    /,
    export: ExportOptions = ExportOptions(),
    device: Device = "auto",
) -> None:
    """Export a point cloud or a mesh in world units from a run, Gaussian splats, depth maps, or a scene with depth.

    A point cloud from a depth camera can be the input of `unrender fit-mesh`.

    Examples:
        unrender export runs/chair --to mesh
        unrender export scan/ --to points
        unrender export garden.ply --to mesh

    Args:
        source: Folder of a run, of depth maps (`unrender depth`) or of a scene with depth images, or a splat file.
        export: What is exported, and how.
        device: Device: cpu, cuda or cuda:N. auto: the first NVIDIA GPU if NVIDIA Warp is installed, else cpu.
    """
    if not source.exists():
        raise MissingFileError(f"{source}: no such folder; give a run, depth maps or a scene with depth")
    export.check()
    target = resolve_device(device)
    run = load_run(source, device=target) if kind_of_source(source) == "run" else None
    if export.method == "density" and (run is None or isinstance(run.field, GaussianField)):
        raise InputError(f"{source}: --method density needs a run with a field that has a density")
    refuse_own_folder(export.output, source)
    use_depth = export.method == "depth"
    frames = [] if run is None or not use_depth else _frames(run, export)
    name, workers, settings = source.resolve().name, current_workers(), {"source": source, "options": export}
    folder, loaded, origin = None, [], ZERO if run is None else run.origin
    if run is not None and use_depth:  # rendered views are kept there until the end
        folder = start_run("export", name, export.output, settings, workers)
        loaded = render_source_views(run, frames, folder / RENDERED, workers)
    elif use_depth:
        loaded, origin = load_source_views(source, export.views, depth_scale=export.depth_scale)
    if not workers.is_first:
        return
    shape = _extract([step.view.to(target) for step in loaded], run, export).to("cpu")
    level = None if run is None or use_depth else _level(run, export)
    folder = folder or start_run("export", name, export.output, settings)
    path = folder / f"{export.to}.{export.format}"
    metrics = _save(to_world(shape, origin), path)
    metrics |= {"views": len(loaded)} if level is None else {"density": level}
    line = command_line("export", [source], changed_options(export))
    title = f"{export.to.capitalize()} of {name}"
    shape_report.write_shape_report(folder / "report.html", title, export.to, shape, metrics, line)
    _finish(folder, metrics, loaded)
    print(path, folder / "report.html", sep="\n")


def _frames(run: Run, export: ExportOptions) -> list[Frame]:
    """Return the views to render, the same for all workers; InputError for 360° ones if points are requested."""
    frames = frames_to_render(run, export.views, export.size)
    kinds = {frame.camera.projection for frame in frames} - {"perspective"}
    if kinds and export.to == "points":
        raise InputError(
            f"{run.folder}: --to points needs perspective views, got {kinds.pop()} ones; export a mesh: --to mesh"
        )
    require_same_run(run, frames, current_workers())
    return frames


def _finish(folder: Path, metrics: dict[str, Any], views: list[LoadedView]) -> None:
    """Write and print the metrics; keep rendered views for a second start only if some are missing."""
    missing = views[0].last_index + 1 - len(views) if views else 0
    if not missing:
        shutil.rmtree(folder / RENDERED, ignore_errors=True)
    write_metrics(folder, metrics, missing)
    _print_summary(metrics)


def _print_summary(metrics: dict[str, Any]) -> None:
    counts = {name: count for name, count in metrics.items() if isinstance(count, int)}
    print(", ".join(counted(count, SINGULAR[name], name) for name, count in counts.items()))
    if "density" in metrics:
        print(f"surface at a density of {metrics['density']:.4g} per world unit")


def _save(shape: Mesh | PointCloud, path: Path) -> dict[str, Any]:
    """Save a shape in world coordinates; return its size."""
    if isinstance(shape, Mesh):
        save_mesh(shape, path)
        return {"vertices": len(shape.vertices), "faces": len(shape.faces)}
    save_cloud(shape, path)
    return {"points": len(shape.points)}


def _extract(views: list[DepthView], run: Run | None, export: ExportOptions) -> Mesh | PointCloud:
    if export.to == "points":
        return points_from_views(
            views,
            tolerance=export.tolerance,
            min_consistent_views=export.min_consistent_views,
            spacing=export.spacing,
        )
    if export.method == "depth":
        return fuse_depths(views, voxel_size=export.voxel_size)
    assert run is not None
    assert isinstance(run.field, TrainableField)
    return extract_surface(run.field, opacity=export.opacity, voxel_size=export.voxel_size)


def _level(run: Run, export: ExportOptions) -> float:
    """Return the density of the extracted level set."""
    assert isinstance(run.field, TrainableField)
    return surface_density(run.field, export.opacity, export.voxel_size)
