"""unrender fit-nerf: train a radiance field on posed images."""

from collections.abc import Callable, Sequence
from typing import Any

from unrender.cli.arguments import Flag, Folder, Number, Resume, Scene
from unrender.cli.confine import confinable
from unrender.reports.fit_report import train_with_report
from unrender.reports.live_report import EventWriter
from unrender.runs.field_run import EvaluationOptions
from unrender.runs.resume import with_saved_options
from unrender.runs.start_fit import start_fit
from unrender.tasks.nerf.config import FitNerf
from unrender.tasks.nerf.fit_nerf import fit_nerf
from unrender.viewer.training import watched_in_browser

TASK = "fit-nerf"


@confinable
def command(
    scene: Scene,
    training: FitNerf = FitNerf(),
    evaluation: EvaluationOptions = EvaluationOptions(),
    depth_scale: Number = None,
    tensorboard: Flag = False,
    resume: Resume = None,
    output: Folder = None,
    viewer: Flag = False,
) -> None:
    """Train a radiance field on posed images (Blender, nerfstudio, instant-ngp, COLMAP or LLFF scenes).

    Example: unrender fit-nerf chair/ --minutes 5 --output runs/chair

    Args:
        scene: Folder of images with camera poses, or its JSON or npy file.
        training: What is trained, on what, and for how long.
        evaluation: Evaluation and exports after training.
        depth_scale: World units per unit of the depth images. Default: checked against points and cameras.
        tensorboard: Write TensorBoard event files to the folder tensorboard of the run.
        resume: Folder of an interrupted run to resume; its scene and settings are the defaults.
        output: Output folder. Default: runs/fit-nerf/NAME-TIME.
        viewer: Open an interactive viewer in the browser during training.
    """
    events = EventWriter() if tensorboard else None
    run, steps = start_fit(
        TASK, fit_nerf, scene, training, evaluation, depth_scale=depth_scale, resume=resume, output=output
    )
    if viewer:
        steps = watched_in_browser(steps, run.scene.frames, run.background)
    train_with_report(run, steps, events)


def command_for(arguments: Sequence[str]) -> Callable[..., Any]:
    """Return the command; with --resume, the settings of that run are its defaults."""
    return with_saved_options(command, TASK, FitNerf, arguments)
