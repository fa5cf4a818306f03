"""The report of `unrender fit-mesh`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.kernels.nearest import nearest
from unrender.reports import figures
from unrender.reports.html import Figure, Section, write_report
from unrender.tasks.mesh.fit_mesh import FitMeshStep
from unrender.tasks.mesh.measure_mesh import distances_to_mesh, random_ids
from unrender.tasks.mesh.prepare_cloud import PreparedCloud

OBSERVED_WITHIN = 2.0
"""Distance to the nearest point, in mean point spacings, up to which the surface counts as observed."""
MAX_DRAWN = 200_000
"""Maximum number of points in images; of larger clouds, a random sample is drawn."""
NUM_VIEWS = 8
"""Images of a turntable."""


def write_mesh_report(
    path: Path,
    title: str,
    cloud: PointCloud,
    steps: Sequence[FitMeshStep],
    metrics: Mapping[str, Any],
    up: str,
    how: Section,
) -> None:
    """Write the report: turntables, metrics, loss curves, and how to reproduce them."""
    write_report(
        path,
        title,
        [
            Section("Results", _summary(metrics, steps[-1].cloud), _turntables(cloud, steps, up)),
            Section("Metrics", "Distances are in the units of the point cloud.", table=metrics),
            Section("Loss curves", svg=_curves(steps[1:]) if len(steps) > 1 else ""),
            how,
        ],
    )


def _turntables(cloud: PointCloud, steps: Sequence[FitMeshStep], up: str) -> list[Figure]:
    """Render the cloud, the initial and the fitted mesh, observed regions and errors, in normalized coordinates."""
    initial, last = steps[0].mesh, steps[-1]
    drawn = random_ids(len(cloud.points), MAX_DRAWN)
    points = PointCloud(
        (cloud.points[drawn].double() - last.cloud.center) / last.cloud.diagonal,
        colors=None if cloud.colors is None else cloud.colors[drawn],
    )
    error = distances_to_mesh(points.points, last.surface)
    highest = max(float(np.quantile(error.numpy(), 0.95)), 0.001)
    gap = nearest(last.surface.vertices, points.points).distances[:, 0].sqrt()
    observed = figures.colored(gap, 2 * OBSERVED_WITHIN * last.cloud.spacing, "cividis")
    colored_points = points.replace(colors=figures.colored(error, highest))
    number = f"{len(cloud.points):,} points"
    if len(drawn) < len(cloud.points):
        number += f", of which {len(drawn):,} are drawn"
    shapes: dict[str, Mesh | PointCloud] = {
        f"point cloud, {number}": points,
        "initial mesh": initial,
        f"fitted mesh, {len(last.surface.faces):,} faces": last.surface,
        "observed (dark) and extrapolated (bright) surface": last.surface.replace(vertex_colors=observed),
        f"points, colored by distance to the mesh, 0 to {highest * last.cloud.diagonal:.3g}": colored_points,
    }
    cameras = figures.turntable(points.points, NUM_VIEWS, up)
    return [
        Figure(caption, [figures.png(figures.render(shape, camera)) for camera in cameras])
        for caption, shape in shapes.items()
    ]


def _curves(steps: Sequence[FitMeshStep]) -> str:
    return figures.curves(series(steps), {step.stage: step.index for step in reversed(steps)})


def series(steps: Sequence[FitMeshStep]) -> dict[str, list[float]]:
    """Return the curves of the losses."""
    return {
        "chamfer (squared diagonals)": [step.losses["chamfer"] for step in steps],
        "normal consistency": [step.losses["normal_consistency"] for step in steps],
        "validation points (diagonals)": [
            step.losses["validation"] for step in steps if "validation" in step.losses
        ],
    }


def _summary(metrics: Mapping[str, Any], cloud: PreparedCloud) -> str:
    closed = "Watertight" if metrics["watertight"] else "Not watertight"
    mean = metrics["cloud_to_mesh_mean"] / metrics["diagonal"]
    text = f"{closed}; mean distance of the points to the mesh: {100 * mean:.3f} % of the cloud's diagonal."
    if cloud.num_averaged:
        text += f" {cloud.num_averaged:,} points were averaged to {len(cloud.weights):,} for the fit."
    if metrics["num_points_measured"] < metrics["num_points"]:
        text += f" Distances were measured with {metrics['num_points_measured']:,} of the points, chosen at random."
    if metrics["observed_fraction"] < 0.95:
        filled = 100 * (1 - metrics["observed_fraction"])
        text += f" {filled:.0f} % of the surface is far from all points and was filled in."
    return text
