"""`TensorStruct`: frozen dataclasses of tensors that support `to`, `map` and indexing as one value."""

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import Any, Self, dataclass_transform

import torch
from torch import Tensor

from unrender._checked import ShapeHints, check_shapes, is_tensor_hint, shape_hints


@dataclass_transform(frozen_default=True)
class TensorStruct:
    """Base class of the library's values: a subclass is a frozen dataclass whose tensor shapes are checked on creation.

    Fields annotated ``"*batch …"`` share their leading axes. Indexing applies to these fields, and to nested values
    with the same batch shape; other fields are kept.
    """

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True, eq=False)(cls)

    def __post_init__(self) -> None:
        check_shapes(type(self).__name__, self._fields(), _hints(type(self)))

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in typing.cast(Any, self).__dataclass_fields__}

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced."""
        changed: Self = dataclasses.replace(typing.cast(Any, self), **changes)
        return changed

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return a copy with `function` applied to every tensor, including those of nested values."""
        changes: dict[str, Any] = {}
        for name, value in self._fields().items():
            if isinstance(value, Tensor):
                changes[name] = function(value)
            elif isinstance(value, TensorStruct):
                changes[name] = value.map(function)
        return self.replace(**changes)

    def to(self, target: torch.device | torch.dtype | str) -> Self:
        """Move to a device, or convert floating-point tensors to another dtype."""
        if isinstance(target, torch.dtype):
            return self.map(lambda tensor: tensor.to(target) if tensor.is_floating_point() else tensor)
        return self.map(lambda tensor: tensor.to(target))

    def detach(self) -> Self:
        """Return a copy detached from the autograd graph; integer tensors are shared with the original."""
        return self.map(lambda tensor: tensor.detach() if tensor.is_floating_point() else tensor)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading axes that the fields annotated ``"*batch …"`` share."""
        own_axes, fields = _axes_after_batch(type(self)), self._fields()
        shapes = [
            value.shape[: value.dim() - own_axes[name]]
            for name, value in fields.items()
            if name in own_axes and isinstance(value, Tensor)
        ]
        return tuple(shapes[0]) if shapes else ()

    def __getitem__(self, index: Any) -> Self:
        shape, own_axes = self.batch_shape, _axes_after_batch(type(self))
        changes: dict[str, Tensor | TensorStruct] = {}
        if not shape:
            raise TypeError(f"{type(self).__name__}: cannot be indexed, as it has no batch axes")
        fields = self._fields()
        device = next(
            value.device for name, value in fields.items() if name in own_axes and isinstance(value, Tensor)
        )
        flat_index = torch.arange(math.prod(shape), device=device).reshape(shape)[index]
        for name, value in fields.items():
            if name in own_axes and isinstance(value, Tensor):
                changes[name] = value.flatten(0, len(shape) - 1)[flat_index]
            elif isinstance(value, TensorStruct) and value.batch_shape == shape:
                changes[name] = value[index]
        return self.replace(**changes)


def _axes_after_batch(cls: type) -> dict[str, int]:
    """Count the axes that follow `*batch` in the fields that have it."""
    return {
        name: len(member.dim_str.split()) - 1
        for name, members in _hints(cls).items()
        for member in members
        if is_tensor_hint(member) and member.dim_str.startswith("*batch")
    }


def _hints(cls: type) -> ShapeHints:
    if "_shape_hints" not in cls.__dict__:
        cls._shape_hints = shape_hints(typing.get_type_hints(cls, include_extras=True))  # type: ignore[attr-defined]
    return typing.cast(ShapeHints, cls.__dict__["_shape_hints"])
