"""`TensorStruct`: frozen dataclasses of tensors that move, map and index as one value."""

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import Any, Self, dataclass_transform

import torch
from torch import Tensor

from unrender._checked import check_shapes, is_tensor_hint, shape_hints


@dataclass_transform(frozen_default=True)
class TensorStruct:
    """Base of the library's values: a subclass is a frozen dataclass whose tensor fields are checked on creation.

    Fields annotated ``"*batch …"`` share their leading axes; indexing the value indexes those and keeps the rest.
    """

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True, eq=False)(cls)

    def __post_init__(self) -> None:
        check_shapes(type(self).__name__, self._fields(), _hints(type(self)))

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(typing.cast(Any, self))}

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        changed: Self = dataclasses.replace(typing.cast(Any, self), **changes)
        return changed

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return a copy with `function` applied to every tensor, also within values that are fields."""
        changes: dict[str, Any] = {}
        for name, value in self._fields().items():
            if isinstance(value, Tensor):
                changes[name] = function(value)
            elif isinstance(value, TensorStruct):
                changes[name] = value.map(function)
        return self.replace(**changes)

    def to(self, target: torch.device | torch.dtype | str) -> Self:
        """Move to a device, or change the precision of the floating-point fields."""
        if isinstance(target, torch.dtype):
            return self.map(lambda tensor: tensor.to(target) if tensor.is_floating_point() else tensor)
        return self.map(lambda tensor: tensor.to(target))

    def detach(self) -> Self:
        """Return a copy cut off from the autograd graph; what carries no gradient stays the same tensor."""
        return self.map(lambda tensor: tensor.detach() if tensor.is_floating_point() else tensor)

    def __getitem__(self, index: Any) -> Self:
        own_axes = _axes_after_batch(type(self))
        batched = {k: v for k, v in self._fields().items() if k in own_axes and isinstance(v, Tensor)}
        shape = next((value.shape[: value.dim() - own_axes[name]] for name, value in batched.items()), ())
        if not shape:
            raise TypeError(f"{type(self).__name__}: there are no batch axes to index")
        places = torch.arange(math.prod(shape)).reshape(shape)[index]
        return self.replace(**{k: v.flatten(0, len(shape) - 1)[places] for k, v in batched.items()})


def _axes_after_batch(cls: type) -> dict[str, int]:
    """Count the axes that follow `*batch` in the fields that have it."""
    return {
        name: len(member.dim_str.split()) - 1
        for name, members in _hints(cls).items()
        for member in members
        if is_tensor_hint(member) and member.dim_str.startswith("*batch")
    }


def _hints(cls: type) -> dict[str, tuple[Any, ...]]:
    if "_shape_hints" not in cls.__dict__:
        cls._shape_hints = shape_hints(typing.get_type_hints(cls, include_extras=True))  # type: ignore[attr-defined]
    return typing.cast(dict[str, tuple[Any, ...]], cls.__dict__["_shape_hints"])
