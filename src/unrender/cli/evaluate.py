"""unrender eval: measure the quality of rendered views of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unrender.cli import arguments
from unrender.cli.confine import confinable
from unrender.data.frames import Frame, Split, evenly_spaced
from unrender.devices import resolve_device
from unrender.errors import InputError
from unrender.losses.perceptual import PerceptualLoss, load_lpips
from unrender.reports import evaluation
from unrender.reports.evaluation import EvaluatedView, Metrics
from unrender.reports.evaluation_report import write_evaluation_report
from unrender.reports.reproduce import command_line
from unrender.runs.folder import start_run, write_json, write_metrics
from unrender.runs.options import check_views
from unrender.runs.progress import run_views
from unrender.runs.saved_run import load_run, require_same_run
from unrender.runs.views import views_of_split
from unrender.tasks.depth.evaluate_depth import evaluate_depth
from unrender.workers import current_workers


@confinable
def command(
    run: arguments.Run,
    /,
    split: Split = "test",
    views: arguments.Count = None,
    scene: arguments.File = None,
    inverted_depth_range: arguments.Number = None,
    depth_scale: arguments.Number = None,
    output: arguments.Folder = None,
    device: arguments.Device = "auto",
) -> None:
    """Compute PSNR, SSIM, LPIPS (if installed) and depth errors (if the scene has depth) of a run's rendered views.

    Example: unrender eval runs/chair

    Args:
        run: Folder of a run of `unrender fit-volume` or `unrender fit-nerf`.
        split: Split of the scene to evaluate.
        views: Number of views to evaluate, evenly spaced. Default: all.
        scene: Path of the scene, if it has been moved.
        inverted_depth_range: Range of 8-bit inverted depth images in world units; 8 for NeRF-synthetic.
        depth_scale: World units per unit of the depth images. Default: that of the run, else from points and cameras.
        output: Output folder. Default: runs/eval/NAME-TIME.
        device: Device: cpu, cuda or cuda:N. auto: the first NVIDIA GPU if NVIDIA Warp is installed, else cpu.
    """
    check_views(views)
    saved = load_run(run, device=resolve_device(device))
    found = views_of_split(saved, split, scene, inverted_depth_range, depth_scale)
    perceptual, lpips = _lpips()
    options: dict[str, Any] = {"split": split, "views": views, "scene": scene}
    options |= {"inverted_depth_range": inverted_depth_range, "depth_scale": depth_scale}
    name, workers, frames = run.resolve().name, current_workers(), evenly_spaced(found, views)
    require_same_run(saved, frames, workers)
    folder = start_run("eval", name, output, {"run": run} | options, workers)
    background = None if saved.background is None else torch.tensor(saved.background)
    rendered = evaluation.evaluate_views(
        saved.field, frames, background, folder / "views", perceptual, workers=workers, keep=True
    )
    evaluated = run_views(rendered, evaluation.describe, workers)
    if not workers.is_first:
        return
    protocol = {"run": run.resolve(), "split": split, "views_in_split": len(found)}
    protocol |= evaluation.protocol(frames, evaluated, background) | {"lpips": lpips}
    mean = _save(folder, protocol, evaluated, evaluate_depth(saved.field, _with_depth(frames, evaluated)))
    summary = evaluation.summary(name, mean, split=split)
    line = command_line("eval", [run], {key: value for key, value in options.items() if value != "test"})
    path, title = folder / "report.html", f"Evaluation of {name}"
    write_evaluation_report(path, title, summary, evaluated, protocol, mean, line)
    write_metrics(folder, mean | evaluation.metrics_by_view(evaluated), len(frames) - len(evaluated))
    print(summary, folder / "eval.json", path, sep="\n")


def _with_depth(frames: Sequence[Frame], evaluated: Sequence[EvaluatedView]) -> list[Frame]:
    """Return the frames of evaluated views that have depth images."""
    return [frames[view.index] for view in evaluated if frames[view.index].depth_file is not None]


def _save(
    folder: Path, protocol: Mapping[str, Any], evaluated: Sequence[EvaluatedView], depth: dict[str, float]
) -> Metrics:
    """Write eval.json; return the mean metrics of the images, and those of depth."""
    mean, views = evaluation.mean_metrics(evaluated), {view.name: view.metrics for view in evaluated}
    write_json(folder / "eval.json", {"protocol": protocol, "mean": mean, "views": views, "depth": depth})
    return mean | depth


def _lpips() -> tuple[PerceptualLoss | None, str]:
    """Load LPIPS if it is installed, and state how it is computed or why it is not."""
    try:
        return load_lpips(), "Zhang et al. 2018 with VGG, averaged over images"
    except InputError as error:
        return None, f"not computed: {error}"
