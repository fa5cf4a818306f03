"""Settings stored as tensors with a batch axis."""

import copy
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.structures.utils import choose
from unrender.errors import InputError

Device = torch.device | str
Setting = Any
"""A number, numbers, or a tensor with a batch axis; text, booleans and None are shared by the batch."""


class TensorPropertiesAccessor:
    """Some members of settings; what is assigned to an attribute is assigned to those members."""

    def __init__(self, class_object: "TensorProperties", index: int | slice | Tensor) -> None:
        self.__dict__.update(class_object=class_object, index=index)

    def __getattr__(self, name: str) -> Tensor:
        value = getattr(self.__dict__["class_object"], name)
        if not isinstance(value, Tensor):
            raise AttributeError(f"{name!r} is not a tensor with an entry for each member")
        return value[self.__dict__["index"]]

    def __setattr__(self, name: str, value: Setting) -> None:
        owner, index = self.__dict__["class_object"], self.__dict__["index"]
        values = getattr(owner, name)
        value = torch.as_tensor(value, dtype=values.dtype, device=values.device)
        if value.dim() > 0 and value.shape[-1] != values.shape[-1] != 1:
            raise ValueError(
                f"{name} has {values.shape[-1]} columns for each member, got {list(value.shape)}"
            )
        changed = values.clone()  # members of a broadcast setting share memory
        changed[index] = value
        setattr(owner, name, changed)


class TensorProperties(torch.nn.Module):
    """Settings as tensors of batch size N; a single value is broadcast."""

    def __init__(self, dtype: torch.dtype = torch.float32, device: Device = "cpu", **kwargs: Setting) -> None:
        super().__init__()
        self.device = torch.device(device)
        self._N = 0
        self._names: list[str] = []
        tensors = {}
        for name, value in kwargs.items():
            if value is None or isinstance(value, str | bool):
                object.__setattr__(self, name, value)
            else:
                tensors[name] = as_batch(value, dtype, self.device)
        sizes = {len(t) for t in tensors.values()}
        self._N = max(sizes, default=0)
        if not sizes <= {1, self._N}:
            raise InputError(
                f"{type(self).__name__}: settings should have one common batch size, or 1, got {sizes}"
            )
        for name, tensor in tensors.items():
            self._names.append(name)
            setattr(self, name, tensor.expand(self._N, *tensor.shape[1:]))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a pickle, of this class or of PyTorch3D's, which keeps no list of its settings."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.__dict__.setdefault(
            "_names", [name for name, v in state.items() if isinstance(v, Tensor) and len(v) == self._N]
        )

    def __len__(self) -> int:
        return self._N

    def isempty(self) -> bool:
        """Return whether the batch is empty."""
        return self._N == 0

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Any:
        """Return members, whose attributes can be read and assigned."""
        if isinstance(index, list | tuple):
            index = torch.tensor(index)
        if not isinstance(index, int | slice | Tensor):
            raise ValueError(f"takes a number, a slice, a list or a tensor, got {type(index).__name__}")
        return TensorPropertiesAccessor(self, index)

    def members(self, index: int | slice | Sequence[int] | Tensor) -> Self:
        """Return the settings of some members, possibly repeated."""
        indices = torch.tensor(choose(index, self._N), device=self.device)
        other = copy.copy(self)
        other._N = len(indices)
        for name in self._names:
            setattr(other, name, getattr(self, name)[indices])
        return other

    def to(self, device: Any = "cpu", *_: Any, **__: Any) -> Self:  # type: ignore[override]
        """Move to a device."""
        self.device = torch.device(device)
        for name in self._names:
            setattr(self, name, getattr(self, name).to(self.device))
        return self

    def cpu(self) -> Self:
        """Move to the CPU."""
        return self.to("cpu")

    def cuda(self, device: Any = None) -> Self:
        """Move to the GPU."""
        return self.to("cuda" if device is None else device)

    def clone(self, other: Self | None = None) -> Self:
        """Copy the tensors."""
        new = copy.copy(self)
        for name in self._names:
            setattr(new, name, getattr(self, name).clone())
        return new

    def gather_props(self, batch_idx: Tensor) -> Self:
        """Select the settings of members, possibly repeated."""
        return self.members(batch_idx) if self._N > 1 else self


def as_batch(value: Setting, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Make a tensor with a batch axis; a tensor keeps its own."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
        value = torch.stack([torch.as_tensor(part) for part in value])
    tensor = torch.as_tensor(value, device=device)
    tensor = tensor if tensor.is_floating_point() else tensor.to(dtype)
    return tensor.reshape(1) if tensor.dim() == 0 else tensor.to(device)


def convert_to_tensors_and_broadcast(
    *args: Setting, dtype: torch.dtype = torch.float32, device: Device = "cpu"
) -> list[Tensor]:
    """Make tensors of one batch size."""
    tensors = [as_batch(value, dtype, torch.device(device)).to(dtype) for value in args]
    size = max(len(t) for t in tensors)
    if any(len(t) not in (1, size) for t in tensors):
        raise InputError(f"batch sizes should be equal, got {[len(t) for t in tensors]}")
    return [t.expand(size, *t.shape[1:]) for t in tensors]


def ndc_grid_sample(
    input: Tensor, grid_ndc: Tensor, *, align_corners: bool = False, **grid_sample_kwargs: Any
) -> Tensor:
    """Sample feature maps [N, C, H, W] at positions [N, ..., 2] in NDC, as `torch.nn.functional.grid_sample` does."""
    count, *spatial, axes = grid_ndc.shape
    if len(input) != count or axes != 2:
        raise InputError(
            f"ndc_grid_sample: takes `grid_ndc` [{len(input)}, ..., 2], got {list(grid_ndc.shape)}"
        )
    grid = ndc_to_grid_sample_coords(grid_ndc, (input.shape[2], input.shape[3])).reshape(count, 1, -1, 2)
    found = grid_sample(input, grid, align_corners=align_corners, **grid_sample_kwargs)
    return found.view(count, input.shape[1], *spatial)


def ndc_to_grid_sample_coords(xy_ndc: Tensor, image_size_hw: Sequence[int]) -> Tensor:
    """Convert positions [..., 2] in NDC to those of `torch.nn.functional.grid_sample`: −1 to 1, +x right, +y down."""
    if len(image_size_hw) != 2 or min(image_size_hw) <= 0:
        raise InputError(f"`image_size_hw` should be height and width, got {image_size_hw}")
    height, width = image_size_hw
    return xy_ndc * xy_ndc.new_tensor([-min(height, width) / width, -min(height, width) / height])


__getattr__ = refuse_unknown(__name__)
