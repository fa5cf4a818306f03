"""Shape annotations, enforced where values enter the library.

A public function states the shapes of its tensors once, in its annotations::

    @checked
    def nearest(queries: Float[Tensor, "*batch queries dim"], points: Float[Tensor, "*batch points dim"]): ...

and a wrong tensor is answered with a `ShapeError` that names function, argument, what was expected and what came.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from jaxtyping import AbstractArray, jaxtyped
from torch import Tensor

from unrender.errors import ShapeError

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check tensor arguments against the function's shape annotations before each call."""
    signature = inspect.signature(function)
    hints: dict[str, Any] = {}

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        if not hints:
            hints.update(typing.get_type_hints(function, include_extras=True))
        check_shapes(function.__name__, signature.bind(*args, **kwargs).arguments, hints)
        return function(*args, **kwargs)

    return wrapper


def check_shapes(where: str, values: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Raise `ShapeError` unless every tensor among `values` fits its hint; axis names bind across all of them."""
    with jaxtyped("context"):
        for name, value in values.items():
            shapes = tensor_hints(hints.get(name))
            if not shapes or (value is None and type(None) in typing.get_args(hints[name])):
                continue
            if not isinstance(value, Tensor) and len(shapes) < len(typing.get_args(hints[name])):
                continue  # the annotation also admits something that is no tensor
            if not any(isinstance(value, shape) for shape in shapes):
                raise ShapeError(
                    f"{where}: `{name}` should be {describe_hints(shapes)}, got {describe_value(value)}"
                )


def tensor_hints(hint: Any) -> list[Any]:
    """List the tensor annotations in a hint: itself, or the members of a union."""
    members = typing.get_args(hint) or (hint,)
    return [member for member in members if isinstance(member, type) and issubclass(member, AbstractArray)]


def describe_hints(hints: list[Any]) -> str:
    """Write tensor annotations as they stand in the source."""
    return " or ".join(f"{hint.dtype.__name__}[Tensor, '{hint.dim_str}']" for hint in hints)


def describe_value(value: object) -> str:
    """Name a value's dtype and shape, or its type if it is no tensor."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return type(value).__name__
