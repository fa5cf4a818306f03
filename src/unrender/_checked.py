"""Runtime checks of jaxtyping shape annotations.

A public function states the shapes of its tensors once, in its annotations::

    @checked
    def nearest(queries: Float[Tensor, "*batch queries dim"], points: Float[Tensor, "*batch points dim"]): ...

and a mismatch raises a `ShapeError` that names the function, the argument, the expected and the actual shape.
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from jaxtyping import AbstractArray, jaxtyped
from torch import Tensor

from unrender.errors import ShapeError

P = ParamSpec("P")
R = TypeVar("R")
MOST_PASSED = 1024


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check tensor arguments against the function's shape annotations before each call."""
    signature = inspect.signature(function)
    names = tuple(signature.parameters)
    hints = ShapeHints()

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        if not hints:
            hints.update(shape_hints(typing.get_type_hints(function, include_extras=True)))
        if hints.kinds(dict(zip(names, args, strict=False)) | kwargs) not in hints.passed:
            check_shapes(function.__name__, signature.bind(*args, **kwargs).arguments, hints)
        return function(*args, **kwargs)

    return wrapper


class ShapeHints(dict[str, tuple[Any, ...]]):
    """The annotations that contain tensors, each as the members of its union; and which arguments have passed."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: set[tuple[Any, ...]] = set()

    def kinds(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return all that a check depends on: types, dtypes and shapes."""
        found: list[Any] = []
        for name in self:
            value = values.get(name, inspect.Parameter.empty)
            found += (type(value), value.dtype, value.shape) if isinstance(value, Tensor) else (type(value),)
        return tuple(found)


def shape_hints(hints: Mapping[str, Any]) -> ShapeHints:
    """Select the annotations that contain tensors."""
    found = ShapeHints()
    found.update(
        {name: _members(hint) for name, hint in hints.items() if any(map(is_tensor_hint, _members(hint)))}
    )
    return found


def check_shapes(where: str, values: Mapping[str, Any], hints: ShapeHints) -> None:
    """Raise `ShapeError` unless every tensor in `values` matches its hint; axis names are bound across all of them.

    What has passed once passes again without a look, in a tenth of the time.
    """
    kinds = hints.kinds(values)
    if kinds in hints.passed:
        return
    with jaxtyped("context"):
        for name, members in hints.items():
            if name in values and not any(_admits(member, values[name]) for member in members):
                raise ShapeError(
                    f"{where}: `{name}` should be {_describe(members)}, got {describe_value(values[name])}"
                )
    if len(hints.passed) >= MOST_PASSED:
        hints.passed.clear()
    hints.passed.add(kinds)


def _describe(members: tuple[Any, ...]) -> str:
    """Format an annotation as it is written in the source."""
    return " or ".join(
        f"{member.dtype.__name__}[Tensor, '{member.dim_str}']"
        if is_tensor_hint(member)
        else getattr(member, "__name__", str(member)).replace("NoneType", "None")
        for member in members
    )


def describe_value(value: object) -> str:
    """Format a tensor's dtype and shape, or the type name of any other value."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return type(value).__name__


def _members(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def is_tensor_hint(hint: Any) -> bool:
    """Return whether an annotation is a jaxtyping annotation."""
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def _admits(member: Any, value: object) -> bool:
    """Return whether a value matches one member of a union; members that are not classes match everything."""
    kind = typing.get_origin(member) or member
    if kind is float:
        return isinstance(value, int | float)
    return not isinstance(kind, type) or isinstance(value, kind)
