"""How commands read their arguments: help texts, and the types of options that several commands have."""

import ast
import dataclasses
import inspect
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

MAX_WIDTH = 100
"""Characters in a line of a description."""
INDENT, EMPTY_LINE = "  ", "\u200b"
"""tyro joins lines that are not indented, and doubles empty lines: a zero-width space keeps one."""
METAVARS = {
    "intrinsics": "FX FY CX CY",
    "box": "LEFT TOP RIGHT BOTTOM",
    "window": "LOW HIGH",
    "spacing": "X Y Z",
    "background": "R G B",
    "views": "N|all",
    "names": "NAME ...",
    "format": "FORMAT ...",
}
"""What the values of options with several values are called in help texts."""


def default_hint(default: str) -> str:
    """Return what follows a help text: the default, unless it is off, or None and described by the text."""
    return "" if default in ("", "None", "False") else f"(default: {default})"


OPTION = tyro.conf.arg(help_behavior_hint=default_hint)
Flag = Annotated[bool, OPTION]
Count = Annotated[int | None, OPTION]
Number = Annotated[float | None, OPTION]
File = Annotated[Path | None, OPTION]
Folder = Annotated[Path | None, OPTION, tyro.conf.arg(metavar="FOLDER")]
Resume = Annotated[Path | None, OPTION, tyro.conf.arg(metavar="RUN")]
Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Scene = Annotated[Path, OPTION, tyro.conf.Positional, tyro.conf.arg(metavar="SCENE")]
Source = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
Address = Annotated[str, tyro.conf.arg(metavar="ADDRESS")]
ValueWindow = Annotated[tuple[float, float] | None, OPTION, tyro.conf.arg(metavar=METAVARS["window"])]
Device = Annotated[str, tyro.conf.arg(metavar="DEVICE")]


def parse(command: Callable[..., Any], name: str, arguments: Sequence[str]) -> Any:
    """Call a command with the arguments of a command line, or print its help."""
    registry = ConstructorRegistry()
    registry.struct_rule(option_group)
    registry.primitive_rule(optional_values)
    style = (tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone)
    text = description(command)
    with registry:
        return tyro.cli(command, prog=f"unrender {name}", description=text, args=arguments, config=style)


def description(command: Callable[..., Any]) -> str:
    """Return the docstring of a command without its arguments, wrapped to the terminal; indented lines stay."""
    text = inspect.getdoc(getattr(command, "func", command)) or ""
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH) - len(INDENT)
    paragraphs = [
        paragraph if "\n    " in paragraph else textwrap.fill(paragraph, width)
        for paragraph in text.split("\nArgs:")[0].strip().split("\n\n")
    ]
    return textwrap.indent(f"\n{EMPTY_LINE}\n".join(paragraphs), INDENT)


def with_option_names(message: str, command: Callable[..., Any]) -> str:
    """Return the message of a library function with the command's options instead of parameters.

    "fit_nerf: `table_log2` should be 10 to 24" becomes "--table-log2 should be 10 to 24".
    """
    options = set(_option_names(command))

    def as_option(name: re.Match[str]) -> str:
        return f"--{name[1].replace('_', '-')}" if name[1] in options else name[0]

    found = re.sub(r"`(\w+)`", as_option, message)
    return message if found == message else re.sub(r"^\w+: ", "", found)


def _option_names(command: Callable[..., Any]) -> Iterator[str]:
    """Yield the options of a command, those of groups one by one."""
    for name, parameter in inspect.signature(command).parameters.items():
        if dataclasses.is_dataclass(parameter.default):
            yield from (field.name for field in dataclasses.fields(parameter.default))
        elif parameter.default is not inspect.Parameter.empty:
            yield name


def option_group(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Read the options of a dataclass; their help texts are the docstrings of its fields."""
    if not dataclasses.is_dataclass(info.type):
        return None
    helps, hints = field_docstrings(info.type), typing.get_type_hints(info.type, include_extras=True)
    fields = []
    for field in dataclasses.fields(info.type):
        default, hint = getattr(info.default, field.name, field.default), hints[field.name]
        if hint is str:
            hint = Annotated[hint, tyro.conf.arg(metavar=field.name.upper())]
        elif field.name in METAVARS and _is_compound(hint):
            hint = Annotated[hint, tyro.conf.arg(metavar=METAVARS[field.name])]
        fields.append(
            StructFieldSpec(
                field.name,
                Annotated[hint, OPTION],  # type: ignore[arg-type]
                default,
                helps.get(field.name),
            )
        )
    return StructConstructorSpec(info.type, tuple(fields))


def _is_compound(hint: object) -> bool:
    """Say whether an option has several values, or values of several kinds."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = [kind for kind in (typing.get_args(hint) if is_union else (hint,)) if kind is not type(None)]
    return len(kinds) > 1 or typing.get_origin(kinds[0]) is tuple


def optional_values(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read an optional tuple as a tuple: of another number of values, tyro then says how many are expected."""
    kinds = [kind for kind in typing.get_args(info.type) if kind is not type(None)]
    is_union = info.type_origin in (typing.Union, types.UnionType)
    if not is_union or len(kinds) != 1 or typing.get_origin(kinds[0]) is not tuple:
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kinds[0], info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(
        spec,
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else spec.str_from_instance(value),
    )


def field_docstrings(kind: type) -> dict[str, str]:
    """Return the docstrings of the fields of a dataclass; a line that ends a sentence stays a line of its own."""
    found = {}
    for parent in reversed(kind.__mro__[:-1]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(parent))).body
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                lines = [line.strip() for line in str(text.value.value).splitlines()]
                joined = "".join(line + ("\n" if line.endswith(".") else " ") for line in lines)
                found[field.target.id] = joined.strip()
    return found
