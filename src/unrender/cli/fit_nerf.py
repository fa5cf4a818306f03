"""unrender fit-nerf: train a radiance field on posed images."""

import argparse
import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from unrender.data.scenes import load_scene
from unrender.errors import InputError
from unrender.reports.field_report import finish, fit_command
from unrender.reports.live_report import EVENTS, EventWriter, LiveReport, describe
from unrender.runs.field_run import EvaluationOptions, FieldRun, choose_background
from unrender.runs.folder import choose_run_folder, create_run_folder, write_json
from unrender.runs.progress import RecordedSteps, run_steps
from unrender.runs.saved_run import read_config, written_by
from unrender.tasks.nerf.config import FitNerf
from unrender.tasks.nerf.fit_nerf import fit_nerf
from unrender.training.checkpoints import CHECKPOINT
from unrender.training.saved_fields import save_field
from unrender.viewer.training import watched_in_browser

TASK = "fit-nerf"
log = logging.getLogger("unrender")


def command(
    scene: Annotated[Path, tyro.conf.Positional],
    /,
    config: FitNerf = FitNerf(),
    evaluation: EvaluationOptions = EvaluationOptions(),
    tensorboard: bool = False,
    resume: Path | None = None,
    output: Path | None = None,
    view: bool = False,
) -> None:
    """Train a radiance field on posed images (Blender, nerfstudio, instant-ngp, COLMAP or LLFF scenes).

    Example: unrender fit-nerf chair/ --minutes 5

    Args:
        scene: Folder of the scene, or its JSON or npy file.
        config: Training.
        evaluation: Evaluation and exports after training.
        tensorboard: Write TensorBoard event files to the folder tensorboard of the run.
        resume: Folder of an interrupted run to resume; its settings are the defaults.
        output: Output folder. Default: runs/fit-nerf/NAME-TIME.
        view: Open an interactive viewer in the browser during training.
    """
    evaluation.check()
    events = EventWriter() if tensorboard else None
    if resume is not None:
        config = _resumable(resume, config, output)
    photos = load_scene(scene)
    folder = choose_run_folder(TASK, photos.name, output) if resume is None else resume
    steps = fit_nerf(photos, config, checkpoints=folder, resume=resume)
    if resume is None:
        create_run_folder(folder, TASK, {})
    background = choose_background(config.background, photos)
    run = FieldRun(TASK, scene, photos, config, evaluation, folder, background)
    run.start()
    log.info("%s is updated during training", folder / "report.html")
    if view:
        steps = watched_in_browser(steps, photos.frames, background)
    live = LiveReport(run, events)
    recorded = RecordedSteps(steps, live.record)
    run_steps(recorded, describe)
    recorded.close()
    if events is not None:
        events.close()
    last = recorded.last
    save_field(last.result, run.field_file)
    if last.exposures is not None:
        names = [frame.name for frame in photos.split("train")]
        write_json(folder / "exposures.json", dict(zip(names, last.exposures.tolist(), strict=True)))
    live.write_curves()
    if not recorded.is_finished and (folder / CHECKPOINT).is_file():
        print(f"resume with: {fit_command(run, '--resume', str(folder))}", flush=True)
    log.info("saved the field; evaluating test views")
    training = {"training_psnr": last.losses["psnr"], "seconds": last.seconds, "steps": last.index}
    finish(run, last.result, training, live.curves())


def command_for(arguments: Sequence[str]) -> Callable[..., Any]:
    """Return the command; with --resume, the settings of that run are its defaults."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", type=Path, nargs="?")
    resume = parser.parse_known_args(arguments)[0].resume
    if resume is None:
        return command
    with_events = (resume / EVENTS).is_dir()
    return functools.partial(
        command, config=_settings(resume), evaluation=_evaluation(resume), tensorboard=with_events
    )


def _settings(resume: Path) -> FitNerf:
    """Read the settings of a run."""
    written = read_config(resume)
    if written["task"] != TASK:
        raise InputError(f"--resume {resume}: a run of {written['task']}; only {TASK} runs can be resumed")
    if not (resume / CHECKPOINT).is_file():
        raise InputError(f"--resume {resume}: no {CHECKPOINT}: it stopped before the first; start a new run")
    values, known = written.get("config"), {field.name for field in dataclasses.fields(FitNerf)}
    if not isinstance(values, dict):
        raise InputError(f"--resume {resume}: no settings in its config.json; start a new run")
    if foreign := sorted(known ^ values.keys()):
        raise InputError(
            f"--resume {resume}: {written_by(written)}; their options differ: {', '.join(foreign)}; "
            "start a new run"
        )
    return FitNerf(**values)


def _evaluation(resume: Path) -> EvaluationOptions:
    """Read the evaluation options of a run."""
    written = read_config(resume).get("evaluation")
    known = {field.name for field in dataclasses.fields(EvaluationOptions)}
    if isinstance(written, dict) and written.keys() <= known:
        return EvaluationOptions(**written)
    return EvaluationOptions()


def _resumable(resume: Path, config: FitNerf, output: Path | None) -> FitNerf:
    """Return the settings of a resumed run: a new duration replaces that of the run."""
    if output is not None and output.resolve() != resume.resolve():
        raise InputError(f"--output {output}: a resumed run continues in {resume}; omit --output")
    original = _settings(resume)
    has_two = config.minutes is not None and config.steps is not None
    if has_two and config.steps == original.steps:
        return dataclasses.replace(config, steps=None)
    if has_two and config.minutes == original.minutes:
        return dataclasses.replace(config, minutes=None)
    return config
