"""Resuming a run: its settings become the defaults of the command that continues it."""

import argparse
import dataclasses
import functools
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from unrender.errors import InputError
from unrender.io.files import reading
from unrender.runs.field_run import EVENTS, EvaluationOptions
from unrender.runs.folder import CONFIG
from unrender.runs.saved_options import options_from_json
from unrender.runs.saved_run import read_config, saved_depth_scale, written_by
from unrender.tasks.nerf.config import FitNerf
from unrender.tasks.volume.config import FitVolume
from unrender.training.checkpoints import CHECKPOINT

Config = TypeVar("Config", FitNerf, FitVolume)
AnyConfig = TypeVar("AnyConfig")


def folder_to_resume(arguments: Sequence[str]) -> Path | None:
    """Return the folder of `--resume RUN` among the arguments of a command."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", type=Path, nargs="?")
    folder: Path | None = parser.parse_known_args(arguments)[0].resume
    return folder


def with_saved_options(
    command: Callable[..., Any], task: str, config: type[Config], arguments: Sequence[str]
) -> Callable[..., Any]:
    """Return a command; with `--resume RUN` among its arguments, the scene and options of that run are its defaults."""
    resume = folder_to_resume(arguments)
    if resume is None:
        return command
    saved: dict[str, Any] = {
        "training": saved_config(resume, task, config),
        "evaluation": saved_group(resume, "evaluation", EvaluationOptions),
    }
    if scene := read_config(resume).get("scene"):
        saved["scene"] = Path(str(scene))
    saved["depth_scale"] = saved_depth_scale(resume)
    return functools.partial(command, **saved, tensorboard=(resume / EVENTS).is_dir())


def saved_config(resume: Path, task: str, config: type[AnyConfig]) -> AnyConfig:
    """Return the settings of a run; InputError if the run cannot be resumed."""
    written = read_config(resume)
    if written["task"] != task:
        raise InputError(f"--resume {resume}: a run of {written['task']}; use `unrender {written['task']}`")
    if not (resume / CHECKPOINT).is_file():
        raise InputError(f"--resume {resume}: no {CHECKPOINT}: it stopped before the first; start a new run")
    values, known = written.get("config"), set(typing.get_type_hints(config))
    if not isinstance(values, dict):
        raise InputError(f"--resume {resume}: no settings in its config.json; start a new run")
    if different := sorted(known ^ values.keys()):
        raise InputError(
            f"--resume {resume}: {written_by(written)}; their options differ: {', '.join(different)}; "
            "start a new run"
        )
    with reading(resume / CONFIG):
        return options_from_json(config, values)


def saved_group(resume: Path, name: str | None, kind: type[AnyConfig]) -> AnyConfig:
    """Return other options of a run, in a group or without one; those that it does not list have their defaults."""
    config = read_config(resume)
    written = config if name is None else config.get(name)
    known = typing.get_type_hints(kind)
    if not isinstance(written, dict):
        return kind()
    with reading(resume / CONFIG):
        return options_from_json(kind, {key: value for key, value in written.items() if key in known})


def refuse_other_output(resume: Path, output: Path | None) -> None:
    """Raise InputError if results of a resumed run would go to another folder."""
    if output is not None and output.resolve() != resume.resolve():
        raise InputError(f"--output {output}: a resumed run continues in {resume}; omit --output")


def resumed_config(resume: Path, task: str, config: Config, output: Path | None) -> Config:
    """Return the settings of a resumed run: a new budget in steps or minutes replaces that of the run."""
    refuse_other_output(resume, output)
    original = saved_config(resume, task, type(config))
    has_two = config.minutes is not None and config.steps is not None
    if has_two and config.steps == original.steps:
        return dataclasses.replace(config, steps=None)
    if has_two and config.minutes == original.minutes:
        return dataclasses.replace(config, minutes=None)
    return config
