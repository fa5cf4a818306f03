"""unrender fit-mesh: fit a mesh to a point cloud."""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import tyro

from unrender.cli.arguments import OPTION, Device, Flag, Folder, Resume
from unrender.cli.confine import confinable
from unrender.cli.known_shape import fit_known_shape
from unrender.cli.shape_options import KnownShape, MeshResult, is_known
from unrender.devices import resolve_device
from unrender.errors import FileAccessError, InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io import load_depth, load_mesh, save_mesh
from unrender.io.clouds import CLOUD_KINDS, load_cloud_and_columns
from unrender.reports import mesh_report
from unrender.reports.reproduce import Name, call, command_line, construct, python_code, reproduce
from unrender.runs.batch import ERROR, file_beside, input_files, print_batch, refuse_workers, run_batch
from unrender.runs.folder import (
    METRICS,
    choose_run_folder,
    create_run_folder,
    start_run,
    write_curves,
    write_json,
)
from unrender.runs.last_resort import save_in_need
from unrender.runs.options import changed_options
from unrender.runs.progress import run_inner_steps, run_steps
from unrender.runs.resume import folder_to_resume, refuse_other_output, saved_config, saved_group
from unrender.runs.saved_run import read_config
from unrender.tasks.mesh.checkpoints import CHECKPOINT, SECONDS_BETWEEN_CHECKPOINTS
from unrender.tasks.mesh.fit_mesh import FitMesh, FitMeshStep, fit_mesh
from unrender.tasks.mesh.measure_mesh import measure_mesh
from unrender.viewer.training import watched_in_browser
from unrender.workers import current_workers

TASK = "fit-mesh"
Cloud = Annotated[Path, OPTION, tyro.conf.Positional, tyro.conf.arg(metavar="CLOUD")]
log = logging.getLogger("unrender")
MIN_OBSERVED_FRACTION = 0.5
"""Fraction of the surface near points below which a result is `unsupported`."""
UNSUPPORTED = 3
"""Exit status of a result that is written, but mostly extrapolated."""
DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".exr", ".pfm")


@dataclasses.dataclass(frozen=True)
class DepthImage:
    """Depth image as input: png, tif, exr or pfm, or npy with --intrinsics."""

    intrinsics: tuple[float, float, float, float] | None = None
    """Focal lengths and principal point in pixels: fx fy cx cy."""
    depth_scale: float | None = None
    """Meters per unit of the image. Default: integers are millimeters, floats are meters."""
    mask: Path | None = None
    """Mask image, black where pixels are ignored. Of a folder: also a folder of masks with the same names."""


@confinable
def command(
    cloud: Cloud,
    fit: FitMesh = FitMesh(),
    depth: DepthImage = DepthImage(),
    shape: KnownShape = KnownShape(),
    output: Folder = None,
    results: MeshResult = MeshResult(),
    viewer: Flag = False,
    resume: Resume = None,
    device: Device = "auto",
) -> int:
    """Fit a watertight mesh to a point cloud (ply, pcd, xyz, npy, npz), a depth image, or points sampled from a mesh.

    Of a folder, each cloud has its own results and a row in summary.csv; with --linear-model, it is a sequence.

    Exit status 3: most of the surface is extrapolated (see --open), or the cloud does not show the known shape.

    Examples:
        unrender fit-mesh scan.ply --holdout 0.1
        unrender fit-mesh face.ply --linear-model faces.npz

    Args:
        cloud: File with the points: a point cloud, a depth image, or a mesh. Or a folder of such files.
        fit: How the mesh is fitted.
        depth: For a depth image as input: png or tif, or npy with --intrinsics.
        shape: A known shape to fit, instead of a free mesh.
        output: Output folder. Default: runs/fit-mesh/NAME-TIME.
        results: Results.
        viewer: Open an interactive viewer in the browser during the fit.
        resume: Folder of an interrupted run to resume; its cloud and settings are the defaults.
        device: Device: cpu, cuda or cuda:N. auto: the first NVIDIA GPU if NVIDIA Warp is installed, else cpu.
    """
    target = resolve_device(device)
    if is_known(shape):
        others = {"viewer": viewer, "resume": resume, **changed_options(depth)}
        return fit_known_shape(cloud, fit, shape, results, output, others)
    task = _Fit(fit, depth, results, _reference(results.reference, target), target)
    if cloud.is_dir():
        return _fit_all(task, cloud, output, {"viewer": viewer, "resume": resume})
    refuse_workers(cloud, current_workers())
    points, columns = _load(cloud, depth)
    start, folder = time.perf_counter(), _folder(cloud, output, resume)
    fitting = fit_mesh(points.to(target), fit, checkpoints=folder, resume=resume)
    create_run_folder(folder, TASK, task.settings(cloud) | {"columns": columns})
    steps = task.fit(fitting, folder, functools.partial(run_steps, describe=_describe), viewer=viewer)
    _say_what_is_left(steps[-1], command_line(TASK, [], {"resume": folder}))
    metrics = task.write(steps, cloud, points, folder, time.perf_counter() - start)
    _print_summary(metrics, columns)
    print(folder / task.file, folder / "report.html", sep="\n")
    return _exit_status(metrics)


def _fit_all(task: "_Fit", clouds: Path, output: Path | None, others: dict[str, Any]) -> int:
    """Fit a mesh to each point cloud of a folder; return the exit status. others: options for a single cloud."""
    for name, value in others.items():
        if value:
            raise InputError(
                f"{clouds}: --{name} does not apply to a folder; to continue, give its --output again"
            )
    depths = [] if task.depth.intrinsics is None else [(*DEPTH_SUFFIXES, ".npy")]
    files = input_files(clouds, *depths, *CLOUD_KINDS)
    if not files:
        raise InputError(
            f"{clouds}: no point clouds; for a scene with depth images, run `unrender export {clouds}` first"
        )
    workers = current_workers()
    folder = start_run(TASK, clouds.resolve().name, output, task.settings(clouds), workers)
    results = run_batch(task, files, folder, workers)
    if not workers.is_first:
        return 0
    print_batch(results, files, ("unsupported", ERROR), folder)
    statuses = {result.status for result in results}
    return 1 if ERROR in statuses else UNSUPPORTED if "unsupported" in statuses else 0


@dataclasses.dataclass(frozen=True)
class _Fit:
    """How meshes are fitted: a task for any number of point clouds."""

    config: FitMesh
    depth: DepthImage
    results: MeshResult
    truth: Mesh | None
    """The mesh that `results.reference` holds."""
    device: torch.device
    name: ClassVar[str] = TASK
    columns: ClassVar[tuple[str, ...]] = (
        *(
            "status",
            "cloud_to_mesh_mean",
            "holdout_to_mesh_mean",
            "mesh_to_reference_mean",
            "reference_to_mesh_mean",
        ),
        *("observed_fraction", "watertight", "genus", "num_faces", "steps"),
    )

    @property
    def file(self) -> str:
        """Name of the mesh file."""
        return f"mesh.{self.results.mesh_format}"

    def settings(self, cloud: Path) -> dict[str, Any]:
        """Return the settings of a run, for its config.json."""
        depth = self.depth if cloud.is_dir() else self._depth_of(cloud)
        settings = {
            "cloud": cloud.resolve(),
            "config": self.config,
            "depth": depth,
        }
        return settings | dataclasses.asdict(self.results) | {"device": str(self.device)}

    def options(self, depth: DepthImage | None = None) -> dict[str, Any]:
        """Return the options of the command line that differ from their defaults."""
        options = changed_options(self.config, depth or self.depth, self.results)
        return {name: value for name, value in options.items() if name != "mesh_format"}

    def _depth_of(self, cloud: Path) -> DepthImage:
        """Return the options of a depth image with its own mask, where masks are in a folder."""
        return dataclasses.replace(self.depth, mask=file_beside(self.depth.mask, cloud))

    def run(self, cloud: Path, folder: Path) -> None:
        """Fit a mesh to a point cloud, and write the results to a folder; a fit that was stopped there is resumed."""
        start, depth = time.perf_counter(), self._depth_of(cloud)
        points, _ = _load(cloud, depth)
        resume = folder if (folder / CHECKPOINT).is_file() else None
        fitting = fit_mesh(points.to(self.device), self.config, checkpoints=folder, resume=resume)
        steps = self.fit(fitting, folder, run_inner_steps)
        self.write(steps, cloud, points, folder, time.perf_counter() - start)

    def fit(
        self,
        fitting: Iterator[FitMeshStep],
        folder: Path,
        run: Callable[[Iterator[FitMeshStep]], list[FitMeshStep]],
        *,
        viewer: bool = False,
    ) -> list[FitMeshStep]:
        """Fit the mesh, and save it."""
        path = folder / self.file
        saved = _saved(fitting, path)
        try:
            steps = run(watched_in_browser(saved) if viewer else saved)
        finally:
            if isinstance(fitting, Generator):
                fitting.close()  # which saves a checkpoint
        try:
            save_mesh(steps[-1].result, path)
        except FileAccessError as error:
            mesh = steps[-1].result
            save_in_need(lambda other: save_mesh(mesh, other), path, path.parent / CHECKPOINT, error)
        return steps

    def write(
        self, steps: list[FitMeshStep], cloud: Path, points: PointCloud, folder: Path, seconds: float
    ) -> dict[str, Any]:
        """Write metrics, curves and the report; return the metrics."""
        depth = self._depth_of(cloud)
        metrics = _measure(steps, points.to(self.device), self.truth) | {"seconds": seconds}
        write_json(folder / METRICS, metrics)
        write_curves(folder, mesh_report.series(steps[1:]))
        line = command_line(TASK, [cloud], self.options(depth))
        how = reproduce(line, _code(cloud, self.config, depth))
        path, title = folder / "report.html", f"Mesh of {cloud.name}"
        mesh_report.write_mesh_report(path, title, points, steps, metrics, self.results.up, how)
        return metrics


def _reference(path: Path | None, device: torch.device) -> Mesh | None:
    return None if path is None else load_mesh(path).to(device)


def _exit_status(metrics: dict[str, Any]) -> int:
    """Warn if most of the surface is extrapolated; return the exit status."""
    if metrics["status"] == "supported":
        return 0
    log.warning(
        "%.0f %% of the surface is far from all points, and extrapolated; for terrain, sheets and scans from one side, "
        "give --open; for a closed object, check its normals, or try --start shell or --start hull",
        100 * (1 - metrics["observed_fraction"]),
    )
    return UNSUPPORTED


def _say_what_is_left(last: FitMeshStep, again: str) -> None:
    """Say that a fit ended before convergence, and how to resume it if it was stopped."""
    if last.stage != "final":
        log.warning("stopped after %d steps, before convergence", last.index)
        if last.index < last.last_index:
            print(f"resume with: {again}", flush=True)


def command_for(arguments: Sequence[str]) -> Callable[..., Any]:
    """Return the command; with --resume, the settings of that run are its defaults."""
    resume = folder_to_resume(arguments)
    if resume is None:
        return command
    fit, depth = saved_config(resume, TASK, FitMesh), saved_group(resume, "depth", DepthImage)
    others: dict[str, Any] = {"results": saved_group(resume, None, MeshResult)}
    if cloud := read_config(resume).get("cloud"):
        others["cloud"] = Path(str(cloud))
    return functools.partial(command, fit=fit, depth=depth, **others)


def _folder(cloud: Path, output: Path | None, resume: Path | None) -> Path:
    """Choose the folder of the run."""
    if resume is None:
        return choose_run_folder(TASK, cloud.stem, output)
    refuse_other_output(resume, output)
    return resume


def _saved(steps: Iterator[FitMeshStep], path: Path) -> Iterator[FitMeshStep]:
    """Save the mesh at every stage, and between them at intervals; a fit that is killed leaves it."""
    stage, due = "", 0.0
    for step in steps:
        if step.stage != stage or time.perf_counter() >= due:
            stage, due = step.stage, time.perf_counter() + SECONDS_BETWEEN_CHECKPOINTS
            try:
                save_mesh(step.result, path)
            except FileAccessError as error:  # the fit continues
                log.warning("step %d: the mesh was not saved: %s", step.index, error)
        yield step


def _load(path: Path, depth: DepthImage) -> tuple[PointCloud, str]:
    """Load the points; the second result says which columns of a table were used for what."""
    if path.suffix.lower() not in DEPTH_SUFFIXES and depth.intrinsics is None:
        return load_cloud_and_columns(path)
    if depth.intrinsics is None:
        raise InputError(f"{path}: a depth image needs the camera's --intrinsics fx fy cx cy, in pixels")
    fx, fy, cx, cy = depth.intrinsics
    return load_depth(path, (fx, fy), (cx, cy), scale=depth.depth_scale, mask=depth.mask), ""


def _describe(step: FitMeshStep) -> str:
    error = step.losses.get("chamfer", float("nan")) ** 0.5 * step.cloud.diagonal
    return f"{step.stage:6s} step {step.index:3d}  rms distance {error:.4g}"


def _measure(steps: list[FitMeshStep], cloud: PointCloud, truth: Mesh | None) -> dict[str, Any]:
    last = steps[-1]
    points, held_out = cloud.points, None
    if len(last.cloud.held_out):
        is_held_out = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        is_held_out[last.cloud.held_out] = True
        points, held_out = points[~is_held_out], points[is_held_out]
    metrics = measure_mesh(
        last.result,
        points,
        observed_within=mesh_report.OBSERVED_WITHIN * last.cloud.spacing * last.cloud.diagonal,
        held_out=held_out,
        reference=truth,
    )
    observed = metrics["observed_fraction"]
    assert observed is not None
    return metrics | {
        "status": "supported" if observed >= MIN_OBSERVED_FRACTION else "unsupported",
        "num_points_fitted": len(last.cloud.points),
        "num_outliers": int(last.cloud.is_outlier.sum()),
        "smoothness": last.smoothness,
        "steps": last.index,
    }


def _code(source: Path, config: FitMesh, depth: DepthImage) -> str:
    load = call("unrender.load_cloud", source)
    if depth.intrinsics is not None:
        fx, fy, cx, cy = depth.intrinsics
        options = {"scale": depth.depth_scale, "mask": depth.mask}
        load = call("unrender.load_depth", source, (fx, fy), (cx, cy), keywords=options)
    return python_code(
        f"cloud = {load}",
        f"for step in {call('unrender.fit_mesh', Name('cloud'), construct(config))}:",
        "    print(step.index, step.losses)",
        'unrender.save_mesh(step.result, "mesh.ply")',
    )


def _print_summary(metrics: dict[str, Any], columns: str) -> None:
    if columns:
        print(f"{'columns':24s} {columns}")
    names = ("cloud_to_mesh_mean", "holdout_to_mesh_mean", "mesh_to_reference_mean", "reference_to_mesh_mean")
    diagonal = metrics["diagonal"]
    for name in names:
        value = metrics.get(name)
        if value is not None:
            print(f"{name:24s} {value:.4g} ({100 * value / diagonal:.3f} % of the diagonal)")
    print(f"{'observed surface':24s} {100 * metrics['observed_fraction']:.0f} %")
    print(f"{'watertight, genus':24s} {'yes' if metrics['watertight'] else 'no'}, {metrics['genus']}")
    print(
        f"{'faces, steps, seconds':24s} {metrics['num_faces']}, {metrics['steps']}, {metrics['seconds']:.1f}"
    )
