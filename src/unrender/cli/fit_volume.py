"""unrender fit-volume: fit a voxel volume to posed images."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from unrender.cli.arguments import Flag, Folder, Number, Resume, Scene
from unrender.cli.confine import confinable
from unrender.reports.fit_report import train_with_report
from unrender.reports.live_report import EventWriter
from unrender.runs.field_run import EvaluationOptions
from unrender.runs.resume import with_saved_options
from unrender.runs.start_fit import start_fit
from unrender.tasks.volume.config import FitVolume
from unrender.tasks.volume.fit_volume import final_resolution, fit_volume
from unrender.viewer.training import watched_in_browser

TASK = "fit-volume"
log = logging.getLogger("unrender")


@confinable
def command(
    scene: Scene,
    training: FitVolume = FitVolume(),
    evaluation: EvaluationOptions = EvaluationOptions(),
    depth_scale: Number = None,
    tensorboard: Flag = False,
    resume: Resume = None,
    output: Folder = None,
    viewer: Flag = False,
) -> None:
    """Fit a voxel volume with density and color to posed images (Blender, nerfstudio, instant-ngp, COLMAP or LLFF).

    Example: unrender fit-volume chair/ --minutes 5 --output runs/chair

    Args:
        scene: Folder of images with camera poses, or its JSON or npy file.
        training: What is trained, on what, and for how long.
        evaluation: Evaluation and exports after training.
        depth_scale: World units per unit of the depth images. Default: checked against points and cameras.
        tensorboard: Write TensorBoard event files to the folder tensorboard of the run.
        resume: Folder of an interrupted run to resume; its scene and settings are the defaults.
        output: Output folder. Default: runs/fit-volume/NAME-TIME.
        viewer: Open an interactive viewer in the browser during training.
    """
    events = EventWriter() if tensorboard else None
    run, steps = start_fit(
        TASK, fit_volume, scene, training, evaluation, depth_scale=depth_scale, resume=resume, output=output
    )
    if viewer:
        steps = watched_in_browser(steps, run.scene.frames, run.background)
    taken = train_with_report(run, steps, events)
    longest, requested = max(taken.last.result.table.shape), final_resolution(training)
    if taken.is_finished and longest < requested:
        log.warning(
            "reached %d of %d voxels along the longest side: increase --%s or lower --resolution",
            longest,
            requested,
            "steps" if run.config.minutes is None else "minutes",
        )


def command_for(arguments: Sequence[str]) -> Callable[..., Any]:
    """Return the command; with --resume, the settings of that run are its defaults."""
    return with_saved_options(command, TASK, FitVolume, arguments)
