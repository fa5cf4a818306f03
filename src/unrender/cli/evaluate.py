"""unrender eval: how good new views of a run are."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from unrender._version import __version__
from unrender.data.frames import Frame, Split
from unrender.data.scenes import load_scene
from unrender.errors import InputError
from unrender.losses.perceptual import PerceptualLoss, load_lpips
from unrender.reports import evaluation
from unrender.reports.html import Section, write_report
from unrender.runs.folder import as_options, open_run_folder, write_json
from unrender.runs.progress import take_all
from unrender.runs.saved_run import Run, load_run
from unrender.tasks.depth.evaluate_depth import evaluate_depth

SLASHES_OF_MEANS = 2
"""In the names of figures of depth; those of single frames have more."""


def command(
    run: Annotated[Path, tyro.conf.Positional],
    /,
    split: Split = "test",
    views: int | None = None,
    scene: Path | None = None,
    inverted_depth_range: float | None = None,
    output: Path | None = None,
) -> None:
    """Compare new views of a run to photos that were held out: PSNR, SSIM, LPIPS if installed, depth if known.

    Example: unrender eval runs/fit-nerf/chair

    Args:
        run: The folder of a run of `unrender fit-volume` or `unrender fit-nerf`.
        split: Which of the scene's frames.
        views: How many of them, as far apart as possible. By default all.
        scene: Where the scene is now, if it was moved.
        inverted_depth_range: The range of NeRF-synthetic's 8-bit depth pictures, in world units (8 for that data set).
        output: Folder for the results. By default runs/eval/NAME-TIME.
    """
    if views is not None and views < 1:
        raise InputError(f"--views {views}: should be at least 1")
    learned = load_run(run)
    found = _frames(learned, split, scene, inverted_depth_range)
    perceptual, lpips = _lpips()
    folder = open_run_folder("eval", run.resolve().name, output)
    asked = {
        "split": split,
        "views": views,
        "scene": scene,
        "inverted_depth_range": inverted_depth_range,
    }
    write_json(folder / "config.json", {"unrender": __version__, "task": "eval", "run": run} | asked)
    behind = None if learned.background is None else torch.tensor(learned.background)
    frames = evaluation.evenly(found, views)
    views_compared = evaluation.evaluate_frames(learned.field, frames, behind, folder / "views", perceptual)
    compared = take_all(views_compared, evaluation.progress_words)
    how: dict[str, Any] = {"run": run.resolve(), "split": split, "frames_of_split": len(found)}
    how |= evaluation.protocol(frames, compared, behind) | {"lpips": lpips}
    mean, by_view = evaluation.mean_metrics(compared), evaluation.metrics_of_views(compared)
    depth = evaluate_depth(learned.field, [f for f in frames[: len(compared)] if f.depth_file is not None])
    parts = {"protocol": how, "mean": mean, "views": {view.name: view.metrics for view in compared}}
    write_json(folder / "eval.json", {"unrender": __version__} | parts | {"depth": depth})
    write_json(folder / "metrics.json", mean | depth | by_view)
    verdict = evaluation.verdict(run.resolve().name, mean, learned_from=split == "train")
    line = ["unrender", "eval", str(run), *as_options({k: v for k, v in asked.items() if v is not None})]
    mean_depth = {name: value for name, value in depth.items() if name.count("/") <= SLASHES_OF_MEANS}
    sections = [
        Section("What came out", verdict, [picture for view in compared for picture in view.pictures]),
        Section("Figures", figures=mean | mean_depth),
        Section("How it was measured", _words(how)),
        Section("View by view", figures=by_view),
        Section("Do it again", code=[shlex.join(line)]),
    ]
    write_report(folder / "report.html", f"Held-out views of {run.resolve().name}", sections)
    print(verdict)
    print(folder / "eval.json")
    print(folder / "report.html")


def _frames(
    run: Run, split: Split, scene: Path | None, inverted_depth_range: float | None
) -> tuple[Frame, ...]:
    """Find the photos to compare to: of the test split, those that the run says it held out."""
    place = scene or run.scene
    if place is None or not Path(place).exists():
        raise InputError(
            f"{run.folder}: its scene {place} is gone, with the photos to compare to; "
            "say where it is now: --scene FOLDER"
        )
    photos = load_scene(place, inverted_depth_range=inverted_depth_range)
    frames = photos.split(split)
    if split == "test" and run.held_out is not None:
        by_name = {frame.name: frame for frame in photos.frames}
        if gone := [name for name in run.held_out if name not in by_name]:
            raise InputError(f"{place}: {', '.join(gone[:3])} was held out by {run.folder}, and is gone")
        frames = tuple(by_name[name] for name in run.held_out)
        if not frames:
            raise InputError(f"{run.folder}: it held no photo out; it learned from those of --split train")
    if not frames:
        there = [name for name in ("train", "val", "test") if photos.split(name)]
        raise InputError(f"{place}: it has no frames for --split {split}; it has {' and '.join(there)}")
    return frames


def _lpips() -> tuple[PerceptualLoss | None, str]:
    """Find LPIPS, and say how it is measured, or why it is not."""
    try:
        return load_lpips(), "Zhang et al. 2018, of VGG; then the mean over pictures"
    except InputError as error:
        return None, f"left out: {error}"


def _words(how: dict[str, Any]) -> str:
    count = f"{len(how['frames'])} of the {how['frames_of_split']} frames of the split {how['split']}."
    return f"{count} {evaluation.protocol_words(how)} LPIPS: {how['lpips']}."
