"""Resuming a run: its settings become the defaults of the command that continues it."""

import argparse
import dataclasses
import functools
import math
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from unrender.errors import FileFormatError, InputError
from unrender.runs.field_run import EVENTS, EvaluationOptions
from unrender.runs.folder import CONFIG
from unrender.runs.saved_run import read_config, written_by
from unrender.tasks.nerf.config import FitNerf
from unrender.tasks.volume.config import FitVolume
from unrender.training.checkpoints import CHECKPOINT

Options = TypeVar("Options", FitNerf, FitVolume, EvaluationOptions)
Config = TypeVar("Config", FitNerf, FitVolume)


def with_saved_options(
    command: Callable[..., Any], task: str, config: type[Config], arguments: Sequence[str]
) -> Callable[..., Any]:
    """Return a command; with `--resume RUN` among its arguments, the scene and options of that run are its defaults."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", type=Path, nargs="?")
    resume = parser.parse_known_args(arguments)[0].resume
    if resume is None:
        return command
    saved: dict[str, Any] = {
        "training": saved_config(resume, task, config),
        "evaluation": _saved_evaluation(resume),
    }
    if scene := read_config(resume).get("scene"):
        saved["scene"] = Path(str(scene))
    return functools.partial(command, **saved, tensorboard=(resume / EVENTS).is_dir())


def saved_config(resume: Path, task: str, config: type[Config]) -> Config:
    """Return the training settings of a run; InputError if the run cannot be resumed."""
    written = read_config(resume)
    if written["task"] != task:
        raise InputError(f"--resume {resume}: a run of {written['task']}; use `unrender {written['task']}`")
    if not (resume / CHECKPOINT).is_file():
        raise InputError(f"--resume {resume}: no {CHECKPOINT}: it stopped before the first; start a new run")
    values, known = written.get("config"), {field.name for field in dataclasses.fields(config)}
    if not isinstance(values, dict):
        raise InputError(f"--resume {resume}: no settings in its config.json; start a new run")
    if foreign := sorted(known ^ values.keys()):
        raise InputError(
            f"--resume {resume}: {written_by(written)}; their options differ: {', '.join(foreign)}; "
            "start a new run"
        )
    return _checked(config(**values), resume)


def _checked(options: Options, resume: Path) -> Options:
    """Return options that a file holds; FileFormatError for a value of another type than the option has."""
    hints = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if not _fits(value, hints[field.name]):
            raise FileFormatError(f"{resume / CONFIG}: `{field.name}` has the value {str(value)[:60]}")
    return options


def _fits(value: object, hint: Any) -> bool:
    """Return whether a value of JSON has the type of an option."""
    if choices := typing.get_args(hint):
        is_literal = typing.get_origin(hint) is Literal
        return value in choices if is_literal else any(_fits(value, choice) for choice in choices)
    if isinstance(value, bool) or hint is bool:
        return hint is bool and isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, hint)


def _saved_evaluation(resume: Path) -> EvaluationOptions:
    """Return the evaluation options of a run."""
    written = read_config(resume).get("evaluation")
    known = {field.name for field in dataclasses.fields(EvaluationOptions)}
    if isinstance(written, dict) and written.keys() <= known:
        return _checked(EvaluationOptions(**written), resume)
    return EvaluationOptions()


def resumed_config(resume: Path, task: str, config: Config, output: Path | None) -> Config:
    """Return the settings of a resumed run: a new budget in steps or minutes replaces that of the run."""
    if output is not None and output.resolve() != resume.resolve():
        raise InputError(f"--output {output}: a resumed run continues in {resume}; omit --output")
    original = saved_config(resume, task, type(config))
    has_two = config.minutes is not None and config.steps is not None
    if has_two and config.steps == original.steps:
        return dataclasses.replace(config, steps=None)
    if has_two and config.minutes == original.minutes:
        return dataclasses.replace(config, minutes=None)
    return config
