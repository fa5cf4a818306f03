"""The option `--confine` of commands that read files from others."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar, get_type_hints

import tyro

from unrender.cli.arguments import default_hint
from unrender.io.confinement import confined_reads

Parameters = ParamSpec("Parameters")
Status = TypeVar("Status")
OPTION = "confine"
HELP = "Refuse to read files outside the folders of the inputs, such as images that a scene lists there."


def confinable(command: Callable[Parameters, Status]) -> Callable[Parameters, Status]:
    """Give a command the option `--confine`: it reads only what is in the folders of its arguments.

    Arguments are paths; a file stands for its folder. Its own output can be read, too.
    """

    @functools.wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> Status:
        if not options.pop(OPTION, False):
            return command(*arguments, **options)
        with confined_reads(*_folders([*arguments, *options.values()])):
            return command(*arguments, **options)

    kind = Annotated[bool, tyro.conf.arg(help=HELP, help_behavior_hint=default_hint)]
    option = inspect.Parameter(OPTION, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
    signature = inspect.signature(command)
    vars(run)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), option])
    del vars(run)["__wrapped__"]  # tyro would read its annotations instead
    run.__annotations__ = get_type_hints(command, include_extras=True) | {OPTION: kind}
    return run


def _folders(values: list[object]) -> Iterator[Path]:
    """List the folders of the paths among arguments, and among the fields of options."""
    for value in values:
        if isinstance(value, str) and value.lower().endswith(".json"):  # a camera path
            value = Path(value)
        if isinstance(value, Path) and value.exists():
            yield value if value.is_dir() else value.parent
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _folders([getattr(value, field.name) for field in dataclasses.fields(value)])
