"""The "Reproduce" section of reports: the command line and the Python code of a run."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from unrender.geometry.world_origin import ZERO
from unrender.reports.html import Section
from unrender.runs.options import as_arguments, changed_options
from unrender.runs.saved_run import Run

EMPTY: Mapping[str, Any] = MappingProxyType({})


class Name(str):
    """A variable or an expression in generated code, written as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def command_line(command: str, inputs: Sequence[str | Path], options: Mapping[str, Any]) -> str:
    """Write a command with its inputs and options, quoted for a shell."""
    return shlex.join(["unrender", command, *map(str, inputs), *as_arguments(options)])


def call(function: str, *arguments: Any, keywords: Mapping[str, Any] = EMPTY) -> Name:
    """Write a call, such as `unrender.load_mesh('cup.obj')`; paths become strings, tensors `torch.tensor(…)`."""
    named = [f"{name}={_literal(value)}" for name, value in keywords.items()]
    return Name(f"{function}({', '.join([*map(_literal, arguments), *named])})")


def load_cameras_code(run: Run, path: Path) -> Name:
    """Write the call that loads cameras into the frame of a variable `field`."""
    keywords = {} if run.origin == ZERO else {"origin": Name("field.scene_box.origin")}
    return call("unrender.load_cameras", path, keywords=keywords)


def construct(options: Any) -> Name:
    """Write the constructor of an options dataclass, with the values that differ from its defaults."""
    return call(f"unrender.{type(options).__name__}", keywords=changed_options(options))


def python_code(*lines: str) -> str:
    """Write a script: the imports that its lines need, an empty line, and the lines."""
    imports = [f"import {name}" for name in ("pathlib", "torch") if any(f"{name}." in line for line in lines)]
    return "\n".join([*imports, "import unrender", "", *lines])


def reproduce(command: str, code: str = "") -> Section:
    """Show how to run it again, from the command line and in Python."""
    return Section("Reproduce", code=[command, *([code] if code else [])])


def _literal(value: Any) -> str:
    if isinstance(value, Tensor):
        precision = "" if value.dtype.itemsize == 4 else f", dtype={value.dtype}"
        return f"torch.tensor({value.tolist()}{precision})"
    return repr(str(value)) if isinstance(value, Path) else repr(value)
