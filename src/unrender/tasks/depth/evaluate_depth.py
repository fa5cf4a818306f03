"""Evaluation of the depth of a field, against ground truth and for consistency between views."""

import math
from collections.abc import Mapping, Sequence

import torch

from unrender.data.frames import Frame
from unrender.fields.protocol import RenderedField
from unrender.losses.depth import depth_errors
from unrender.render.depth import DepthMap, DepthView
from unrender.render.march import FieldFunction
from unrender.tasks.depth.measure_depth import measure_depth
from unrender.tasks.depth.view_consistency import view_consistency

KINDS = ("expected", "median", "first_surface")


def evaluate_depth(field: RenderedField | FieldFunction, frames: Sequence[Frame]) -> dict[str, float]:
    """Evaluate the depth of a field at the cameras of frames; return flat metrics.

    For frames with ground-truth depth: `depth/<kind>/<metric>/<frame>` for each kind of depth and each metric of
    `depth_errors`, within the frame's mask, and their means over frames as `depth/<kind>/<metric>`, ignoring nan. For
    two frames or more, with or without ground truth: `depth/consistency` and `depth/consistency_fraction` of the median
    depths, see `view_consistency`.
    """
    figures: dict[str, float] = {}
    views = []
    for frame in frames:
        found = measure_depth(field, frame.camera)
        views.append(DepthView(found.camera, torch.where(found.valid, found.median_z, 0)))
        if frame.depth_file is not None:
            figures |= {f"{name}/{frame.name}": value for name, value in _errors(found, frame).items()}
    means = _means(figures)
    if len(views) > 1:
        means |= {f"depth/{name}": value for name, value in view_consistency(views).items()}
    return means | figures


def _errors(found: DepthMap, frame: Frame) -> dict[str, float]:
    view = frame.load()
    assert view.depth is not None
    truth = view.depth if view.mask is None else torch.where(view.mask, view.depth, 0)
    figures: dict[str, float] = {}
    for kind in KINDS:
        errors = depth_errors(getattr(found, f"{kind}_z"), truth.to(found.opacity.device), found.valid)
        figures |= {f"depth/{kind}/{name}": value for name, value in errors.items()}
    return figures


def _means(figures: Mapping[str, float]) -> dict[str, float]:
    """Average over frames, whose names follow the third slash of the keys."""
    by_name: dict[str, list[float]] = {}
    for name, value in figures.items():
        by_name.setdefault("/".join(name.split("/")[:3]), []).append(value)
    return {name: _mean([v for v in values if not math.isnan(v)]) for name, values in by_name.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
