"""The report of `unrender inspect` for a Gaussian splat file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unrender.data.frames import evenly_spaced
from unrender.fields.gaussians import VISIBLE_OPACITY, GaussianField
from unrender.reports import figures
from unrender.reports.html import Figure, Section, write_report
from unrender.reports.reproduce import call, command_line, python_code, reproduce
from unrender.runs.saved_run import Run

VIEWS, IMAGE_SIZE = 6, 320
MAX_QUANTILE = 1_000_000
"""Gaussians of which quantiles are computed, evenly spaced."""
LOGISTIC = (0.5, 0.732)
"""Range of the logistic function of numbers in [0, 1]."""
LARGE = 0.5
"""Standard deviation of a large Gaussian, as a fraction of the diagonal of the bounds."""


def describe_splats(field: GaussianField) -> dict[str, Any]:
    """Return the number of Gaussians, their bounds, and quantiles of their scales and opacities, as flat metrics."""
    gaussians, (low, high) = field.gaussians, field.bounds()
    step = max(1, len(gaussians.means) // MAX_QUANTILE)
    largest = gaussians.scales.amax(-1)
    metrics: dict[str, Any] = dict(field.describe())
    for name, values in {"scale": largest, "opacity": gaussians.opacities}.items():
        for quantile in (0.01, 0.5, 0.99):
            metrics[f"{name}_quantile_{quantile:g}"] = float(values[::step].quantile(quantile))
    metrics |= {
        f"bounds_{side}_{axis}": float(corner[i])
        for side, corner in (("low", low), ("high", high))
        for i, axis in enumerate("xyz")
    }
    metrics["is_antialiased"] = gaussians.is_antialiased
    metrics["num_transparent"] = int((gaussians.opacities < VISIBLE_OPACITY).sum())
    metrics["num_large"] = int((largest > LARGE * (high - low).norm()).sum())
    return metrics


def summarize_splats(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the main properties of splats as text."""
    low, high = (
        ", ".join(f"{metrics[f'bounds_{side}_{axis}']:.3g}" for axis in "xyz") for side in ("low", "high")
    )
    scales, opacities = (
        [f"{metrics[f'{name}_quantile_{q}']:.3g}" for q in ("0.01", "0.5", "0.99")]
        for name in ("scale", "opacity")
    )
    return {
        "Gaussians": f"{metrics['num_gaussians']:,}",
        "harmonics": f"degree {metrics['harmonics_degree']}",
        "bounds": f"({low}) to ({high}), without outliers",
        "scales": f"median {scales[1]}, 1st to 99th percentile {scales[0]} to {scales[2]}",
        "opacities": f"median {opacities[1]}, 1st to 99th percentile {opacities[0]} to {opacities[2]}",
        "antialiased": "yes" if metrics["is_antialiased"] else "no",
    }


def warn_about_splats(metrics: Mapping[str, Any]) -> list[str]:
    """Return likely problems."""
    notes, count = [], metrics["num_gaussians"]
    if metrics["num_transparent"] > count / 2:
        notes.append(
            f"{metrics['num_transparent']:,} of {count:,} Gaussians have an opacity below {VISIBLE_OPACITY}"
        )
    if metrics["opacity_quantile_0.01"] >= LOGISTIC[0] and metrics["opacity_quantile_0.99"] <= LOGISTIC[1]:
        notes.append(
            f"opacities are within {LOGISTIC[0]} and {LOGISTIC[1]}: the file may hold opacities and scales instead of "
            "their logits and logarithms"
        )
    if metrics["num_large"]:
        notes.append(
            f"{metrics['num_large']:,} Gaussians are larger than half of the scene; they may hide it"
        )
    return notes


def write_splat_report(
    path: Path, run: Run, summary: Mapping[str, str], notes: Sequence[str], size: int = IMAGE_SIZE
) -> None:
    """Write the report: summary, warnings, and a few views."""
    views = evenly_spaced(run.frames(), VIEWS)
    white = torch.ones(3)
    shown = [
        Figure(
            f"view {i}", [figures.png(run.field.render(frame.camera.resize_longest(size), white).color.cpu())]
        )
        for i, frame in enumerate(views, 1)
    ]
    code = python_code(f"field = {call('unrender.load_field', run.field_file)}", "low, high = field.bounds()")
    sections = [
        Section("Summary", table=summary),
        Section(
            "Warnings",
            "" if notes else "No problems found.",
            table={f"{i}": note for i, note in enumerate(notes, 1)},
        ),
        Section("Views", figures=shown),
        reproduce(command_line("inspect", [run.folder], {}), code),
    ]
    write_report(path, f"Gaussians of {run.folder.name}", sections)
