"""unrender fit-mesh: fit a mesh to a point cloud."""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from unrender.cli.arguments import Device, File, Flag, Folder, Resume
from unrender.cli.confine import confinable
from unrender.devices import resolve_device
from unrender.errors import FileAccessError, InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io import load_depth, load_mesh, save_mesh
from unrender.io.clouds import load_cloud_and_columns
from unrender.reports import mesh_report
from unrender.reports.html import Section
from unrender.reports.reproduce import Name, call, command_line, construct, python_code, reproduce
from unrender.runs.folder import choose_run_folder, create_run_folder, write_curves, write_json
from unrender.runs.options import changed_options
from unrender.runs.progress import run_steps
from unrender.runs.resume import folder_to_resume, refuse_other_output, saved_config, saved_group
from unrender.tasks.mesh.checkpoints import SECONDS_BETWEEN_CHECKPOINTS
from unrender.tasks.mesh.fit_mesh import FitMesh, FitMeshStep, fit_mesh
from unrender.tasks.mesh.measure_mesh import measure_mesh
from unrender.viewer.training import watched_in_browser

TASK = "fit-mesh"
Axis = Literal["x", "y", "z", "-x", "-y", "-z"]
MeshFormat = Literal["ply", "obj", "stl", "glb"]
log = logging.getLogger("unrender")
MIN_OBSERVED_FRACTION = 0.5
"""Fraction of the surface near points below which a result is `unsupported`."""
UNSUPPORTED = 3
"""Exit status of a result that is written, but mostly extrapolated."""
DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".exr")


@dataclasses.dataclass(frozen=True)
class DepthImage:
    """Depth image as input: png, tif or exr, or npy with --intrinsics."""

    intrinsics: tuple[float, float, float, float] | None = None
    """Focal lengths and principal point in pixels: fx fy cx cy."""
    depth_scale: float | None = None
    """Meters per unit of the image. Default: integers are millimeters, floats are meters."""
    mask: Path | None = None
    """Mask image, black where pixels are ignored."""


@dataclasses.dataclass(frozen=True)
class _Saved:
    """Other options that a resumed run takes from config.json."""

    mesh_format: MeshFormat = "ply"
    reference: Path | None = None
    up: Axis = "y"


@confinable
def command(
    cloud: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CLOUD")],
    /,
    fit: FitMesh = FitMesh(),
    depth: DepthImage = DepthImage(),
    output: Folder = None,
    mesh_format: MeshFormat = "ply",
    reference: File = None,
    up: Axis = "y",
    viewer: Flag = False,
    resume: Resume = None,
    device: Device = "auto",
) -> int:
    """Fit a watertight mesh to a point cloud (ply, pcd, xyz, npy, npz), a depth image, or points sampled from a mesh.

    Exit status 3: most of the surface is far from all points, and extrapolated; see --open.

    Example: unrender fit-mesh scan.ply --holdout 0.1

    Args:
        cloud: File with the points: a point cloud, a depth image, or a mesh.
        fit: How the mesh is fitted.
        depth: For a depth image as input: png or tif, or npy with --intrinsics.
        output: Output folder. Default: runs/fit-mesh/NAME-TIME.
        mesh_format: File format of the mesh.
        reference: Ground-truth mesh to measure the result against.
        up: Up axis of the images in the report.
        viewer: Open an interactive viewer in the browser during the fit.
        resume: Folder of an interrupted run to resume; its settings are the defaults.
        device: Device: cpu, cuda or cuda:N. auto: the first NVIDIA GPU if NVIDIA Warp is installed, else cpu.
    """
    target = resolve_device(device)
    points, columns = _load(cloud, depth)
    truth = None if reference is None else load_mesh(reference).to(target)
    start, folder = time.perf_counter(), _folder(cloud, output, resume)
    fitting = fit_mesh(points.to(target), fit, checkpoints=folder, resume=resume)
    settings = {"cloud": cloud, "columns": columns, "config": fit, "depth": depth, "mesh_format": mesh_format}
    create_run_folder(folder, TASK, settings | {"reference": reference, "up": up, "device": str(target)})
    path = folder / f"mesh.{mesh_format}"
    steps = _run(fitting, path, viewer=viewer)
    seconds = {"seconds": time.perf_counter() - start}
    options = changed_options(fit, depth) | {"reference": reference} | ({} if up == "y" else {"up": up})
    _say_what_is_left(steps[-1], command_line(TASK, [cloud], {"resume": folder} | options))
    metrics = _measure(steps, points.to(target), truth) | seconds
    how = reproduce(command_line(TASK, [cloud], options), _code(cloud, fit, depth))
    _report(folder, f"Mesh of {cloud.name}", points, steps, metrics, up, how)
    _print_summary(metrics, columns)
    print(path, folder / "report.html", sep="\n")
    return _exit_status(metrics)


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


def _run(fitting: Iterator[FitMeshStep], path: Path, *, viewer: bool) -> list[FitMeshStep]:
    """Fit the mesh, and save it."""
    saved = _saved(fitting, path)
    steps = run_steps(watched_in_browser(saved) if viewer else saved, _describe)
    if isinstance(fitting, Generator):
        fitting.close()  # which saves a checkpoint
    save_mesh(steps[-1].result, path)
    return steps


def _report(
    folder: Path,
    title: str,
    points: PointCloud,
    steps: list[FitMeshStep],
    metrics: dict[str, Any],
    up: Axis,
    how: Section,
) -> None:
    """Write metrics, curves and the report."""
    write_json(folder / "metrics.json", metrics)
    write_curves(folder, mesh_report.series(steps[1:]))
    mesh_report.write_mesh_report(folder / "report.html", title, points, steps, metrics, up, how)


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
    others = dataclasses.asdict(saved_group(resume, None, _Saved))
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
    if path.is_dir():
        raise InputError(
            f"{path}: a folder, not a file; for a scene with depth images, run `unrender export {path}` first"
        )
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
    is_held_out = torch.zeros(len(cloud.points), dtype=torch.bool, device=cloud.points.device)
    is_held_out[last.cloud.held_out] = True
    held_out = cloud.points[is_held_out] if len(last.cloud.held_out) else None
    metrics = measure_mesh(
        last.result,
        cloud.points[~is_held_out],
        observed_within=mesh_report.OBSERVED_WITHIN * last.cloud.spacing * last.cloud.diagonal,
        held_out=held_out,
        reference=truth,
    )
    observed = metrics["observed_fraction"]
    assert observed is not None
    return metrics | {
        "status": "supported" if observed >= MIN_OBSERVED_FRACTION else "unsupported",
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
