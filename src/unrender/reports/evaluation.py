"""Evaluation of a field: rendered views compared with the images of a scene."""

import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from unrender._wording import counted
from unrender.data.frames import Frame, evenly_spaced
from unrender.fields.protocol import RenderedField
from unrender.io.files import read_bytes, reading
from unrender.io.images import save_image
from unrender.losses.perceptual import PerceptualLoss
from unrender.render.colormaps import distance_colors
from unrender.render.march import RenderOutput
from unrender.reports import figures
from unrender.reports.html import Figure
from unrender.runs.folder import write_json
from unrender.runs.saved_run import as_color
from unrender.runs.views import file_stems
from unrender.training.evaluation import MeasuredView, measure_view
from unrender.workers import ALONE, Workers

log = logging.getLogger("unrender")
Metrics = dict[str, Any]
WARM_UP_SIZE = 16
"""Longer side in pixels of a view that is rendered before times are measured."""
VIEWS_IN_REPORT = 4
MAX_NAMES = 40
"""Names of views listed in a report."""
IMAGE_SIZE = 400
"""Longer side of the images in reports, in pixels."""
FIGURES_PER_VIEW = 3


@dataclasses.dataclass(frozen=True)
class EvaluatedView:
    """A rendered view and its errors."""

    index: int
    last_index: int
    name: str
    figures: tuple[Figure, ...]
    """For the report; empty for most views."""
    metrics: dict[str, float | None]
    """psnr, ssim, … by name; None where a metric is not defined."""


def evaluate_views(
    field: RenderedField,
    frames: Sequence[Frame],
    background: Tensor | None,
    folder: Path,
    perceptual: PerceptualLoss | None = None,
    *,
    seconds: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
    workers: Workers = ALONE,
    keep: bool = False,
) -> Iterator[EvaluatedView]:
    """Render views, save them to a folder and compare them with their images, composited on the same background.

    With `seconds`, only as many views as fit into that time, evenly spaced: the first one tells how long each takes.
    Of several `workers`, each evaluates the next view whenever it is free. With `keep`, metrics are saved beside each
    view, and views that have them are kept, except the few that the report shows: they are rendered again.
    """
    folder.mkdir(exist_ok=True)
    chosen = list(zip(frames, file_stems(frames), strict=True))
    if seconds is not None and chosen:
        field.render(chosen[0][0].camera.resize_longest(WARM_UP_SIZE), background)  # compiles kernels
    for index in workers.claims(len(chosen), str(folder)):
        if index >= len(chosen):  # fewer fit into the time
            return
        begin, (frame, stem) = clock(), chosen[index]
        in_report = index % max(1, -(-len(chosen) // VIEWS_IN_REPORT)) == 0
        kept = _kept_metrics(folder / f"{stem}.json") if keep and not in_report else None
        if kept is not None:
            yield EvaluatedView(index, len(chosen) - 1, frame.name, (), kept)
            continue
        measured = measure_view(field, frame, background, perceptual)
        save_image(measured.rendered.color, folder / f"{stem}.png")
        if index == 0 and seconds is not None:
            chosen = evenly_spaced(chosen, max(1, int(seconds / max(clock() - begin, 1e-6))))
            if len(chosen) < len(frames):
                log.info("%d of %d test views; all of them with --views all", len(chosen), len(frames))
        if keep:
            write_json(folder / f"{stem}.json", measured.metrics)
        shown = compare_images(frame.name, measured) if in_report else ()
        yield EvaluatedView(index, len(chosen) - 1, frame.name, shown, measured.metrics)


def _kept_metrics(path: Path) -> dict[str, float | None] | None:
    """Read the metrics of a view, which are written after it; None if there are none."""
    if not path.is_file():
        return None
    data = read_bytes(path)
    with reading(path):
        metrics: dict[str, float | None] = json.loads(data)
        return metrics if metrics["psnr"] is not None else None


def describe(view: EvaluatedView) -> str:
    """Return the progress line of a view."""
    return f"evaluating view {view.index + 1} of {view.last_index + 1}  {view.metrics['psnr']:5.2f} dB"


def compare_images(name: str, view: MeasuredView) -> tuple[Figure, ...]:
    """Show the ground truth, the rendered view and its distance side by side."""
    return (
        Figure(f"{name}: ground truth", [small_png(view.target)]),
        Figure(f"{name}: rendered ({view.metrics['psnr']:.1f} dB)", [small_png(view.rendered.color)]),
        distance_figure(name, view.rendered),
    )


def distance_figure(name: str, rendered: RenderOutput) -> Figure:
    """Show the mean distance along the rays of a view."""
    distance = distance_colors(rendered.distance, rendered.opacity)
    return Figure(f"{name}: distance (near dark, far bright, empty blue)", [small_png(distance)])


def small_png(image: Tensor) -> bytes:
    """Encode an image for a report, reduced to `IMAGE_SIZE`."""
    return figures.png(figures.thumbnail(image, IMAGE_SIZE))


def mean_metrics(views: Sequence[EvaluatedView]) -> Metrics:
    """Average each metric over the views that have it, and count the views."""
    means: Metrics = {"num_evaluated_views": len(views)}
    for name in dict.fromkeys(name for view in views for name in view.metrics):
        values = [
            value
            for view in views
            if (value := view.metrics.get(name)) is not None and not math.isnan(value)  # of an empty mask
        ]
        means[name] = sum(values) / len(values) if values else None
    return means


def metrics_by_view(views: Sequence[EvaluatedView]) -> Metrics:
    """Return the metrics of each view as METRIC/VIEW."""
    return {f"{name}/{view.name}": value for view in views for name, value in view.metrics.items()}


def protocol(
    frames: Sequence[Frame], evaluated: Sequence[EvaluatedView], background: Tensor | None
) -> Metrics:
    """State how views were compared, so that others can do the same."""
    names = {view.name for view in evaluated}
    chosen = [frame for frame in frames if frame.name in names]
    return {
        "views": [frame.name for frame in chosen],
        "sizes": sorted({(frame.camera.width, frame.camera.height) for frame in chosen}),
        "background": as_color(background),
        "masked_views": sum(frame.has_mask for frame in chosen),
        "psnr": "from the mean squared error over all channels of an image in [0, 1] (inside its mask, if any), then "
        "averaged over images",
        "psnr_matched": "as psnr, after scaling each channel of the rendered view to match its photo: the exposure of "
        "photos that were not trained on is unknown; photos without transparency only",
        "ssim": "Wang et al. 2004, Gaussian windows of 11 × 11 pixels with sigma 1.5, averaged over channels, "
        "data range 1 (scikit-image, use_sample_covariance=False), then averaged over images",
    }


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """Summarize the protocol for a report."""
    sizes, names = protocol["sizes"], protocol["views"]
    if not names:
        return ""
    size = " and ".join(f"{width} × {height}" for width, height in sizes[:3])
    more = " and other sizes" if len(sizes) > 3 else ""
    color = protocol["background"]
    background = "" if color is None else f", composited on {_color_name(color)}"
    others = f" and {len(names) - MAX_NAMES} more, listed in metrics.json" if len(names) > MAX_NAMES else ""
    return (
        f"PSNR {protocol['psnr']}; SSIM over Gaussian windows of 11 × 11 pixels. Images of {size} pixels{more}"
        f"{background}: {', '.join(names[:MAX_NAMES])}{others}."
    )


def _color_name(color: Sequence[float]) -> str:
    if min(color) == max(color) and color[0] in (0.0, 1.0):
        return "white" if color[0] else "black"
    return f"RGB {' '.join(f'{channel:.3g}' for channel in color)}"


def summary(scene: str, metrics: Metrics, *, split: str = "test", num_views: int = 0) -> str:
    """Summarize the mean metrics in a sentence; it says if the scene has more views than were evaluated."""
    count = metrics["num_evaluated_views"]
    if not count:
        return "No test views: the quality of new views was not measured."
    others = "".join(
        f", {name.upper()} {metrics[name]:.3f}" for name in ("ssim", "lpips") if metrics.get(name) is not None
    )
    kind = {"train": "training", "val": "validation"}.get(split, split)
    is_partial = num_views > count
    views = f"{f'{count} of ' if is_partial else ''}{counted(max(count, num_views), f'{kind} view')}"
    rest = " (all of them with --views all)" if is_partial else ""
    return f"{views} of {scene}{rest}: PSNR {metrics['psnr']:.2f} dB{others}"
