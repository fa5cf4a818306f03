"""unrender fit-volume: a volume from posed images."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from unrender.data.scenes import load_scene
from unrender.reports import figures
from unrender.reports.field_report import After, FieldRun, check_after, color_behind, finish
from unrender.runs.folder import open_run_folder, write_curves
from unrender.runs.progress import Watched, take_all
from unrender.tasks.volume.fit_volume import FitVolume, FitVolumeStep, fit_volume
from unrender.training.saved_fields import save_field
from unrender.viewer.training import watched_in_browser

log = logging.getLogger("unrender")


@dataclasses.dataclass(frozen=True)
class Progress:
    """What is kept of a step: not its field, which would take memory for each."""

    index: int
    last_index: int
    psnr: float
    num_voxels: int
    seconds: float


def command(
    scene: Annotated[Path, tyro.conf.Positional],
    /,
    config: FitVolume = FitVolume(),
    after: After = After(),
    output: Path | None = None,
    view: bool = False,
) -> None:
    """Turn posed images (Blender, nerfstudio, instant-ngp, COLMAP, LLFF) into voxels with density and color.

    Example: unrender fit-volume chair/ --minutes 5

    Args:
        scene: The folder of the scene, or its json or npy file.
        config: How to fit.
        after: What to make of it.
        output: Folder for the results. By default runs/fit-volume/NAME-TIME.
        view: Whether to show it in the browser while it learns.
    """
    check_after(after)
    photos = load_scene(scene)
    steps = fit_volume(photos, config)
    folder = open_run_folder("fit-volume", photos.name, output)
    behind = color_behind(config.background, photos)
    if view:
        steps = watched_in_browser(steps, photos.frames, behind)
    watched = Watched(steps, _progress)
    run = FieldRun("fit-volume", scene, photos, config, after, folder, behind)
    run.begin()
    progress = take_all(watched, _words)
    last = watched.last
    longest = max(last.result.table.shape)
    if longest < config.resolution:
        log.warning(
            "the work ended at %d voxels along the longest side, not %d: give it more time or a lower --resolution",
            longest,
            config.resolution,
        )
    save_field(last.result, run.field_file)
    series = _series(progress)
    write_curves(folder, series)
    log.info("the volume is saved; now to the pictures that were held out")
    learned = {
        "psnr_while_learning": last.losses["psnr"],
        "seconds": last.seconds,
        "steps": last.index,
    }
    finish(run, last.result, learned, figures.curves(series, {}))


def _progress(step: FitVolumeStep) -> Progress:
    return Progress(step.index, step.last_index, step.losses["psnr"], step.num_voxels, step.seconds)


def _words(step: Progress) -> str:
    return f"step {step.index:5d}  {step.psnr:5.2f} dB  {step.num_voxels:9,d} voxels  {step.seconds:5.0f} s"


def _series(progress: Sequence[Progress]) -> dict[str, list[float]]:
    errors = [10 ** (-step.psnr / 10) for step in progress]
    voxels = [float(step.num_voxels) for step in progress]
    return {"mean squared error of colors": errors, "voxels": voxels}
