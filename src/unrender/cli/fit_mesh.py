"""unrender fit-mesh: mesh from a point cloud."""

import dataclasses
import logging
import shlex
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

from unrender._version import __version__
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io import load_cloud, load_depth, load_mesh, save_mesh
from unrender.kernels.nearest import nearest
from unrender.reports import figures
from unrender.reports.html import Picture, Section, write_report
from unrender.runs.folder import changes, open_run_folder, write_curves, write_json
from unrender.runs.progress import take_all
from unrender.tasks.mesh.fit_mesh import FitMesh, FitMeshStep, fit_mesh
from unrender.tasks.mesh.measure_mesh import distances_to_mesh, measure_mesh
from unrender.viewer.training import watched_in_browser

Metrics = dict[str, Any]
log = logging.getLogger("unrender")
SEEN_WITHIN = 2.0
"""Surface this close to a point, in mean distances between points, counts as seen."""
NUM_VIEWS = 8
"""Pictures once around."""
DEPTH_SUFFIXES = (".png", ".tif", ".tiff")


@dataclasses.dataclass(frozen=True)
class DepthImage:
    """How to read a cloud that is a depth image (png, tif; or npy with --intrinsics)."""

    intrinsics: tuple[float, float, float, float] | None = None
    """Focal lengths and principal point in pixels: fx fy cx cy."""
    depth_scale: float | None = None
    """Metres per unit of the image. By default whole numbers are millimetres, others metres."""
    mask: Path | None = None
    """An image, black where no point is wanted."""


def command(
    cloud: Annotated[Path, tyro.conf.Positional],
    /,
    config: FitMesh = FitMesh(),
    depth: DepthImage = DepthImage(),
    output: Path | None = None,
    mesh_format: Literal["ply", "obj", "stl", "glb"] = "ply",
    reference: Path | None = None,
    up: Literal["x", "y", "z", "-x", "-y", "-z"] = "y",
    view: bool = False,
) -> None:
    """Turn a point cloud (ply, pcd, xyz, npy, npz; a depth image; a mesh, by sampling it) into a watertight mesh.

    Example: unrender fit-mesh scan.ply --holdout 0.1

    Args:
        cloud: The file with the points.
        config: How to fit.
        depth: How to read a depth image.
        output: Folder for the results. By default runs/fit-mesh/NAME-TIME.
        mesh_format: Format of the resulting mesh.
        reference: A mesh of the true surface, to measure the result against.
        up: The axis that points up in the pictures of the report.
        view: Whether to show it in the browser while it is fitted.
    """
    points = _load(cloud, depth)
    truth = None if reference is None else load_mesh(reference)
    begin = time.perf_counter()
    fit = fit_mesh(points, config)
    folder = open_run_folder("fit-mesh", cloud.stem, output)
    write_json(
        folder / "config.json",
        {
            "unrender": __version__,
            "task": "fit-mesh",
            "cloud": cloud,
            "config": config,
            "depth": depth,
            "mesh_format": mesh_format,
            "reference": reference,
            "up": up,
        },
    )
    steps = take_all(watched_in_browser(fit) if view else fit, _words)
    if steps[-1].stage != "final":
        log.warning("ended after %d steps, before the fit did: this is not its best", steps[-1].index)
    seconds = time.perf_counter() - begin
    save_mesh(steps[-1].result, folder / f"mesh.{mesh_format}")
    metrics = _measure(steps, points, truth) | {"seconds": seconds}
    write_json(folder / "metrics.json", metrics)
    write_curves(folder, _series(steps[1:]))
    _report(
        folder / "report.html", cloud, points, steps, metrics, up, _how(cloud, config, depth, reference, up)
    )
    _print_summary(metrics)
    print(folder / f"mesh.{mesh_format}")
    print(folder / "report.html")


def _load(path: Path, depth: DepthImage) -> PointCloud:
    if path.suffix.lower() not in DEPTH_SUFFIXES and depth.intrinsics is None:
        return load_cloud(path)
    if depth.intrinsics is None:
        raise InputError(f"{path}: a depth image needs the camera's --intrinsics fx fy cx cy, in pixels")
    fx, fy, cx, cy = depth.intrinsics
    return load_depth(path, (fx, fy), (cx, cy), scale=depth.depth_scale, mask=depth.mask)


def _words(step: FitMeshStep) -> str:
    error = step.losses.get("chamfer", float("nan")) ** 0.5 * step.cloud.diagonal
    return f"{step.stage:6s} step {step.index:3d}  rms distance {error:.4g}"


def _measure(steps: list[FitMeshStep], cloud: PointCloud, truth: Mesh | None) -> Metrics:
    last = steps[-1]
    is_held_out = torch.zeros(len(cloud.points), dtype=torch.bool)
    is_held_out[last.cloud.held_out] = True
    held_out = cloud.points[is_held_out] if len(last.cloud.held_out) else None
    metrics = measure_mesh(
        last.result,
        cloud.points[~is_held_out],
        seen_within=SEEN_WITHIN * last.cloud.spacing * last.cloud.diagonal,
        held_out=held_out,
        reference=truth,
    )
    return metrics | {
        "num_outliers": int(last.cloud.is_outlier.sum()),
        "smoothness": last.smoothness,
        "steps": last.index,
    }


def _report(
    path: Path,
    source: Path,
    cloud: PointCloud,
    steps: list[FitMeshStep],
    metrics: Metrics,
    up: str,
    how: list[str],
) -> None:
    write_report(
        path,
        f"Mesh from {source.name}",
        [
            Section("What came out", _verdict(metrics), _turntables(cloud, steps, up)),
            Section("Figures", "Distances are in the units of the cloud.", figures=metrics),
            Section("How it went", svg=_curves(steps[1:]) if len(steps) > 1 else ""),
            Section("Do it again", code=how),
        ],
    )


def _turntables(cloud: PointCloud, steps: list[FitMeshStep], up: str) -> list[Picture]:
    """Turn the cloud, the start, the result, what was seen, and the errors, all in the frame of the fit."""
    start, last = steps[0].mesh, steps[-1]
    unit = cloud.replace(points=(cloud.points.double() - last.cloud.center) / last.cloud.diagonal)
    error = distances_to_mesh(unit.points, last.mesh)
    highest = max(float(np.quantile(error.numpy(), 0.95)), 0.001)
    gap = nearest(last.mesh.vertices, unit.points).distances[:, 0].sqrt()
    seen = figures.colored(gap, 2 * SEEN_WITHIN * last.cloud.spacing, "cividis")
    shapes: dict[str, Mesh | PointCloud] = {
        f"the cloud, {len(cloud.points):,} points": unit,
        "the start": start,
        f"the result, {len(last.mesh.faces):,} faces": last.mesh,
        "seen (dark) and filled in (bright)": last.mesh.replace(vertex_colors=seen),
        f"points by distance to the mesh, 0 to {highest * last.cloud.diagonal:.3g}": unit.replace(
            colors=figures.colored(error, highest)
        ),
    }
    around = [figures.view_from(30 + 360 * i / NUM_VIEWS, unit.points, up) for i in range(NUM_VIEWS)]
    return [
        Picture(caption, [figures.png(figures.show(shape, camera)) for camera in around])
        for caption, shape in shapes.items()
    ]


def _curves(steps: list[FitMeshStep]) -> str:
    return figures.curves(_series(steps), {step.stage: step.index for step in reversed(steps)})


def _series(steps: list[FitMeshStep]) -> dict[str, list[float]]:
    return {
        "chamfer (squared diagonals)": [step.losses["chamfer"] for step in steps],
        "normal consistency": [step.losses["normal_consistency"] for step in steps],
        "points kept back (diagonals)": [step.losses["unseen"] for step in steps if "unseen" in step.losses],
    }


def _how(source: Path, config: FitMesh, depth: DepthImage, reference: Path | None, up: str) -> list[str]:
    """Write the command and the lines of Python that do the same once more."""
    line = ["unrender", "fit-mesh", str(source)]
    settings = changes(config)
    for name, value in (settings | changes(depth)).items():
        values = value if isinstance(value, tuple) else (value,)
        line += ["--" + name.replace("_", "-"), *map(str, values)]
    line += [] if reference is None else ["--reference", str(reference)]
    line += [] if up == "y" else ["--up", up]
    load = f"unrender.load_cloud({str(source)!r})"
    if depth.intrinsics is not None:
        fx, fy, cx, cy = depth.intrinsics
        mask = None if depth.mask is None else str(depth.mask)
        load = f"unrender.load_depth({str(source)!r}, {fx, fy}, {cx, cy}, scale={depth.depth_scale}, mask={mask!r})"
    spelled = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    python = [
        "import unrender",
        "",
        f"cloud = {load}",
        f"for step in unrender.fit_mesh(cloud, unrender.FitMesh({spelled})):",
        "    print(step.index, step.losses)",
        'unrender.save_mesh(step.result, "mesh.ply")',
    ]
    return [shlex.join(line), "\n".join(python)]


def _verdict(metrics: Metrics) -> str:
    closed = "watertight" if metrics["watertight"] else "not watertight"
    share = metrics["cloud_to_mesh_mean"] / metrics["diagonal"]
    text = f"A {closed} mesh; on average the points are {100 * share:.3f} % of the cloud's diagonal away from it."
    if metrics["seen_share"] < 0.95:
        text += f" {100 * (1 - metrics['seen_share']):.0f} % of its surface is far from all points: it was filled in."
    return text


def _print_summary(metrics: Metrics) -> None:
    names = ("cloud_to_mesh_mean", "holdout_to_mesh_mean", "mesh_to_reference_mean", "reference_to_mesh_mean")
    diagonal = metrics["diagonal"]
    for name in names:
        value = metrics.get(name)
        if value is not None:
            print(f"{name:24s} {value:.4g} ({100 * value / diagonal:.3f} % of the diagonal)")
    print(f"{'watertight, genus':24s} {'yes' if metrics['watertight'] else 'no'}, {metrics['genus']}")
    print(
        f"{'faces, steps, seconds':24s} {metrics['num_faces']}, {metrics['steps']}, {metrics['seconds']:.1f}"
    )
