"""Depth maps of views, their metrics and the report of `unrender depth`."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from unrender.data.depth_maps import METADATA_FILE, DepthFiles, load_depth_map, save_depth
from unrender.data.frames import Frame
from unrender.fields.protocol import RenderedField
from unrender.io.depth_preview import Colormap, colorize_depth, depth_range
from unrender.render.depth import DepthMap, DepthView
from unrender.reports import figures
from unrender.reports.html import Figure, Section, write_report
from unrender.reports.reproduce import Name, call, load_cameras_code, python_code, reproduce
from unrender.runs.saved_run import CAMERAS, Run
from unrender.runs.views import file_stems
from unrender.tasks.depth.depth_views import median_view, surface_color
from unrender.tasks.depth.measure_depth import measure_depth
from unrender.tasks.depth.view_consistency import view_consistency
from unrender.workers import ALONE, Workers

log = logging.getLogger("unrender")
VIEWS_IN_REPORT, FIGURES_PER_VIEW, IMAGE_SIZE = 6, 5, 320


@dataclasses.dataclass(frozen=True)
class MeasuredView:
    """A view whose depth maps were written."""

    index: int
    last_index: int
    name: str
    valid_fraction: float
    view: DepthView
    figures: Sequence[Figure]
    """For the report; empty for most views."""


def measure_views(
    field: RenderedField,
    frames: Sequence[Frame],
    folder: Path,
    files: DepthFiles,
    thresholds: tuple[float, float],
    workers: Workers = ALONE,
) -> Iterator[MeasuredView]:
    """Measure the depth of a field in each view of this worker and write it to a folder per view; those there are kept.

    thresholds: accumulated opacity of the first surface, and minimum opacity of a valid depth.
    """
    threshold, min_opacity = thresholds
    settings = {"threshold": threshold, "min_opacity": min_opacity}
    names = file_stems(frames)
    for index in workers.claims(len(frames), str(folder)):
        frame, name = frames[index], names[index]
        if (folder / name / METADATA_FILE).is_file():
            depth, color = load_depth_map(folder / name, frame.camera)
        else:
            depth = measure_depth(field, frame.camera, threshold=threshold, min_opacity=min_opacity)
            color, origin = surface_color(field, depth), field.scene_box.origin
            save_depth(depth, folder / name, files, color=color, metadata=settings, origin=origin)
        if not bool(depth.valid.any()):
            log.warning("%s: no surface in this view", name)
        in_report = index % max(1, -(-len(frames) // VIEWS_IN_REPORT)) == 0
        shown = _figures(name, depth, color, files.colormap) if in_report else ()
        valid_fraction = float(depth.valid.float().mean())
        yield MeasuredView(index, len(frames) - 1, name, valid_fraction, median_view(depth), shown)


def describe(view: MeasuredView) -> str:
    """Return the progress line of a view."""
    return f"measuring depth, view {view.index + 1} of {view.last_index + 1}"


def depth_metrics(views: Sequence[MeasuredView], seconds_per_view: float) -> dict[str, Any]:
    """Return the fraction of valid pixels, of all views and of each, and the consistency between views."""
    metrics: dict[str, Any] = {
        "views": len(views),
        "valid_fraction": sum(view.valid_fraction for view in views) / len(views),
        "seconds_per_view": seconds_per_view,
    }
    if len(views) > 1:
        metrics |= view_consistency([view.view for view in views])
    return metrics | {f"valid_fraction/{view.name}": view.valid_fraction for view in views}


def _figures(name: str, depth: DepthMap, color: Tensor, colormap: Colormap) -> list[Figure]:
    valid = depth.valid
    low, high = depth_range(depth.median_distance, valid)
    first = colorize_depth(depth.first_surface_distance, valid, low, high, colormap)
    spread = colorize_depth(depth.std, valid, 0.0, max(depth_range(depth.std, valid)[1], 1e-12), "magma")
    confidence = colorize_depth(depth.confidence, valid, 0.0, 1.0, "gray")
    median = colorize_depth(depth.median_distance, valid, low, high, colormap)
    images = {
        "color": color,
        f"median distance, {low:.3g} (dark) to {high:.3g} (bright)": median,
        "first-surface distance (same colors)": first,
        "standard deviation (bright: large)": spread,
        "confidence (bright: high)": confidence,
    }
    return [
        Figure(f"{name}: {caption}", [figures.png(figures.thumbnail(image, IMAGE_SIZE))])
        for caption, image in images.items()
    ]


def write_depth_report(
    path: Path, run: Run, views: Sequence[MeasuredView], metrics: dict[str, Any], command: str
) -> None:
    """Write the report: depth maps of a few views, metrics, and how to reproduce them."""
    code = python_code(
        f"field = {call('unrender.load_field', run.field_file)}",
        f"frame = {load_cameras_code(run, run.folder / CAMERAS)}[0]",
        f"depth = {call('unrender.measure_depth', Name('field'), Name('frame.camera'))}",
        'unrender.save_depth(depth, "view")',
    )
    sections = [
        Section(
            "Results",
            "Distances are in world units; pixels without depth are blue.",
            [figure for view in views for figure in view.figures],
            columns=FIGURES_PER_VIEW,
        ),
        Section("Metrics", table={name: value for name, value in metrics.items() if "/" not in name}),
        reproduce(command, code),
    ]
    write_report(path, f"Depth of {run.folder.resolve().name}", sections)
