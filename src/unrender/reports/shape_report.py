"""The report of `unrender export`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.reports import figures
from unrender.reports.html import Figure, Section, write_report
from unrender.reports.reproduce import reproduce

NUM_FRAMES = 12
"""Images of the turntable."""


def write_shape_report(
    path: Path,
    title: str,
    caption: str,
    shape: Mesh | PointCloud,
    metrics: Mapping[str, Any],
    command: str,
) -> None:
    """Write the report: a turntable of a mesh or a point cloud, and metrics."""
    points = shape.vertices if isinstance(shape, Mesh) else shape.points
    cameras = figures.turntable(points, NUM_FRAMES, start=0)
    images = [figures.png(figures.render(shape, camera)) for camera in cameras]
    sections = [
        Section("Results", figures=[Figure(caption, images)]),
        Section("Metrics", table=metrics),
        reproduce(command),
    ]
    write_report(path, title, sections)
