"""unrender fit-nerf: a radiance field from posed images."""

import argparse
import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import tyro

from unrender.data.scenes import load_scene
from unrender.errors import InputError
from unrender.reports.field_report import After, FieldRun, check_after, color_behind, finish
from unrender.reports.live_report import EVENTS, Events, Live, words
from unrender.runs.folder import choose_run_folder, make_run_folder, write_json
from unrender.runs.progress import Watched, take_all
from unrender.runs.saved_run import read_config, version_words
from unrender.tasks.nerf.config import FitNerf
from unrender.tasks.nerf.fit_nerf import fit_nerf
from unrender.training.checkpoints import CHECKPOINT
from unrender.training.saved_fields import Field, save_field
from unrender.viewer.training import watched_in_browser

TASK = "fit-nerf"
log = logging.getLogger("unrender")


def command(
    scene: Annotated[Path, tyro.conf.Positional],
    /,
    config: FitNerf = FitNerf(),
    after: After = After(),
    tensorboard: bool = False,
    resume: Path | None = None,
    output: Path | None = None,
    view: bool = False,
) -> None:
    """Turn posed images (Blender, nerfstudio, instant-ngp, COLMAP, LLFF) into a radiance field.

    Example: unrender fit-nerf chair/ --minutes 5

    Args:
        scene: The folder of the scene, or its json or npy file.
        config: How to fit.
        after: What to make of it.
        tensorboard: Whether to write event files for TensorBoard, into the folder tensorboard of the results.
        resume: The folder of a run that was stopped: go on there, with its settings where nothing else is said.
        output: Folder for the results. By default runs/fit-nerf/NAME-TIME.
        view: Whether to show it in the browser while it learns.
    """
    check_after(after)
    events = Events() if tensorboard else None
    if resume is not None:
        config = _resumable(resume, config, output)
    photos = load_scene(scene)
    folder = choose_run_folder(TASK, photos.name, output) if resume is None else resume
    steps = fit_nerf(photos, config, checkpoints=folder, resume=resume)
    if resume is None:
        make_run_folder(folder, TASK)
    run = FieldRun(TASK, scene, photos, config, after, folder, color_behind(config.background, photos))
    run.begin()
    log.info("%s renews itself while the field is learned", folder / "report.html")
    if view:
        steps = watched_in_browser(steps, photos.frames, run.behind)
    live = Live(run, events)
    watched = Watched(steps, live.note)
    take_all(watched, words)
    watched.close()
    if events is not None:
        events.close()
    last = watched.last
    save_field(cast(Field, last.result), run.field_file)
    if last.exposures is not None:
        names = [frame.name for frame in photos.split("train")]
        write_json(folder / "exposures.json", dict(zip(names, last.exposures.tolist(), strict=True)))
    live.write_curves()
    if not watched.has_ended and (folder / CHECKPOINT).is_file():
        print(f"to go on later: {run.command('--resume', str(folder))}", flush=True)
    log.info("the field is saved; now to the pictures that were held out")
    learned = {
        "psnr_while_learning": last.losses["psnr"],
        "seconds": last.seconds,
        "steps": last.index,
    }
    finish(run, last.result, learned, live.curves())


def command_for(arguments: Sequence[str]) -> Callable[..., Any]:
    """Return the command; if a run is to be resumed, its settings are the defaults."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", type=Path, nargs="?")
    resume = parser.parse_known_args(arguments)[0].resume
    if resume is None:
        return command
    with_events = (resume / EVENTS).is_dir()
    return functools.partial(command, config=_settings(resume), after=_after(resume), tensorboard=with_events)


def _settings(resume: Path) -> FitNerf:
    """Read the settings that a run was begun with."""
    written = read_config(resume)
    if written["task"] != TASK:
        raise InputError(
            f"--resume {resume}: a run of {written['task']}; only those of {TASK} can be resumed"
        )
    if not (resume / CHECKPOINT).is_file():
        raise InputError(
            f"--resume {resume}: it has no {CHECKPOINT}: it ended before there was one; begin a new run"
        )
    values, known = written.get("config"), {field.name for field in dataclasses.fields(FitNerf)}
    if not isinstance(values, dict):
        raise InputError(f"--resume {resume}: its config.json has no settings; begin a new run")
    if foreign := sorted(known ^ values.keys()):
        raise InputError(
            f"--resume {resume}: {version_words(written)}: the setting{'s' * (len(foreign) > 1)} "
            f"{', '.join(foreign)} {'are' if len(foreign) > 1 else 'is'} not known to both; begin a new run"
        )
    return FitNerf(**values)


def _after(resume: Path) -> After:
    """Read what was to be made of the field."""
    written = read_config(resume).get("after")
    known = {field.name for field in dataclasses.fields(After)}
    return After(**written) if isinstance(written, dict) and written.keys() <= known else After()


def _resumable(resume: Path, config: FitNerf, output: Path | None) -> FitNerf:
    """Say how to go on: for as long as is asked for now, and where the run is."""
    if output is not None and output.resolve() != resume.resolve():
        raise InputError(f"--output {output}: a resumed run goes on in {resume}; leave --output out")
    begun = _settings(resume)
    has_two = config.minutes is not None and config.steps is not None
    if has_two and config.steps == begun.steps:  # the run's own length gives way
        return dataclasses.replace(config, steps=None)
    if has_two and config.minutes == begun.minutes:
        return dataclasses.replace(config, minutes=None)
    return config
