"""The report of `unrender fit-mesh` for a known shape: a template or a linear shape model."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrender.geometry.camera import Camera, transform
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.render.mesh import render_depth, render_mesh
from unrender.render.points import render_points
from unrender.reports import figures
from unrender.reports.html import Figure, Section, write_report
from unrender.tasks.mesh.measure_mesh import distances_to_mesh

NUM_VIEWS = 8
"""Images of a turntable."""
POINT_COLOR = (0.85, 0.25, 0.1)
MAX_DRAWN_POINTS = 3000
MAX_FRAMES = 24
"""Frames of a sequence in the report, at most."""
MAX_BARS = 60
"""Coefficients in a chart, at most: the largest ones."""
Coefficients = Mapping[str, tuple[float, float]]
"""Values and standard deviations by name."""


def write_shape_fit_report(
    path: Path,
    title: str,
    summary: str,
    images: Sequence[Figure],
    charts: Mapping[str, Coefficients],
    metrics: Mapping[str, Any],
    how: Section,
) -> None:
    """Write the report: overlays, coefficients with error bars, and metrics."""
    sections = [Section("Results", summary, images)]
    for name, coefficients in charts.items():
        if coefficients:
            text = "Error bars: one posterior standard deviation."
            if len(coefficients) > MAX_BARS:
                text += f" The {MAX_BARS} largest of {len(coefficients)}."
            sections.append(Section(name, text, svg=bars(coefficients)))
    sections.append(Section("Metrics", "Distances are in the units of the point cloud.", table=metrics))
    write_report(path, title, [*sections, how])


def fit_figures(
    cloud: PointCloud, before: Mesh, after: Mesh, observed: Tensor, world_from_shape: Tensor, up: str
) -> list[Figure]:
    """Render the cloud over the mesh before and after the fit, the observed part, and the distances of the points.

    Images are in the frame of the known shape, which is usually upright.
    """
    shape_from_world = torch.linalg.inv(world_from_shape.double().cpu())
    cloud = PointCloud(transform(shape_from_world, cloud.points.double().cpu()))
    before, after = (
        Mesh(transform(shape_from_world, mesh.vertices.double().cpu()), mesh.faces.cpu())
        for mesh in (before, after)
    )
    cloud, meshes = _normalized(cloud, [before, after])
    error = distances_to_mesh(cloud.points, meshes[1])
    highest = max(float(np.quantile(error.numpy(), 0.95)), 1e-3)
    size = float((after.vertices.amax(0) - after.vertices.amin(0)).norm())
    size *= float(torch.linalg.det(world_from_shape[:3, :3])) ** (1 / 3)
    colors = torch.where(observed[:, None], torch.tensor([0.35, 0.55, 0.75]), torch.tensor([0.93, 0.85, 0.5]))
    cameras = figures.turntable(_framed(cloud, meshes[1]), NUM_VIEWS, up, start=0.0)
    few = _few(cloud)
    colored = few.replace(colors=figures.colored(distances_to_mesh(few.points, meshes[1]), highest))
    rows = {
        "points over the aligned shape, before the deformation": [
            overlay(meshes[0], few, c) for c in cameras
        ],
        "points over the fitted mesh": [overlay(meshes[1], few, c) for c in cameras],
        "fitted mesh: observed (blue) and inferred (yellow)": [
            render_mesh(meshes[1].replace(vertex_colors=colors), c, supersampling=2) for c in cameras
        ],
        f"points, colored by distance to the mesh, 0 to {highest * size:.3g}": [
            render_points(colored, c) for c in cameras
        ],
    }
    return [Figure(caption, [figures.png(image) for image in images]) for caption, images in rows.items()]


def sequence_figure(frames: Sequence[tuple[PointCloud, Mesh]], world_from_shape: Tensor, up: str) -> Figure:
    """Render the points over the mesh of every frame, from the same camera, as a video.

    Images are in the frame of the known shape at a pose.
    """
    shape_from_world = torch.linalg.inv(world_from_shape.double().cpu())
    frames = [
        (
            PointCloud(transform(shape_from_world, cloud.points.double().cpu())),
            Mesh(transform(shape_from_world, mesh.vertices.double().cpu()), mesh.faces.cpu()),
        )
        for cloud, mesh in frames
    ]
    first = frames[0]
    cloud, (mesh,) = _normalized(first[0], [first[1]])
    camera = figures.view_from(0.0, _framed(cloud, mesh), up)
    images = []
    for cloud, mesh in frames:
        low, high = first[1].vertices.aminmax(dim=0)
        own, (moved,) = _normalized(cloud, [mesh], (low + high) / 2, float((high - low).norm()))
        images.append(figures.png(overlay(moved, _few(own), camera)))
    return Figure("points over the fitted mesh, frame by frame", images, is_video=True)


def overlay(mesh: Mesh, cloud: PointCloud, camera: Camera) -> Tensor:
    """Render a mesh, and over it the points that it does not hide."""
    image = render_mesh(mesh, camera, supersampling=2)
    depth = render_depth(mesh, camera)
    x, y, z = camera.project(cloud.points).unbind(-1)
    column, row = (c.floor().long().clamp(0, size - 1) for c, size in ((x, camera.width), (y, camera.height)))
    behind = (depth[row, column] > 0) & (z > depth[row, column] + 0.02)
    visible = PointCloud(cloud.points[~behind])
    if not len(visible.points):
        return image
    drawn = render_points(visible, camera, radius=1.0, color=POINT_COLOR)
    is_point = (drawn < 0.99).any(-1, keepdim=True)
    return torch.where(is_point, drawn, image.to(drawn))


def bars(coefficients: Coefficients) -> str:
    """Draw coefficients as bars with error bars; return an SVG."""
    from matplotlib.figure import Figure as Plot

    largest = sorted(coefficients, key=lambda name: -abs(coefficients[name][0]))[:MAX_BARS]
    names = [name for name in coefficients if name in largest]
    values, deviations = zip(*(coefficients[name] for name in names), strict=True)
    plot = Plot(figsize=(8, 2.8))
    plot.subplots_adjust(left=0.06, right=0.99, bottom=0.38, top=0.97)
    axes = plot.subplots()
    axes.bar(range(len(names)), values, color="#7aa0cc")
    finite = [min(deviation, 10.0) for deviation in deviations]
    axes.errorbar(range(len(names)), values, finite, fmt="none", ecolor="#333333", elinewidth=0.8)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.axhline(0, color="#333333", linewidth=0.6)
    file = io.StringIO()
    plot.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]


def _normalized(
    cloud: PointCloud, meshes: Sequence[Mesh], center: Tensor | None = None, size: float = 0.0
) -> tuple[PointCloud, list[Mesh]]:
    """Scale to the size of the last mesh, in double precision on the CPU."""
    low, high = meshes[-1].vertices.double().cpu().aminmax(dim=0)
    center = (low + high) / 2 if center is None else center.double().cpu()
    size = size or float((high - low).norm())
    points = PointCloud((cloud.points.double().cpu() - center) / size)
    return points, [Mesh((m.vertices.double().cpu() - center) / size, m.faces.cpu()) for m in meshes]


def _few(cloud: PointCloud) -> PointCloud:
    """Return at most some points, evenly."""
    count = min(len(cloud.points), MAX_DRAWN_POINTS)
    return PointCloud(cloud.points[torch.arange(count) * len(cloud.points) // count])


def _framed(cloud: PointCloud, mesh: Mesh) -> Tensor:
    """Return the positions that images should show: those of the mesh, and most of the points."""
    low, high = torch.from_numpy(np.quantile(cloud.points.numpy(), [0.02, 0.98], axis=0))
    return torch.cat([mesh.vertices, low[None], high[None]])
