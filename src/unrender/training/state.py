"""What a training depends on from one step to the next, as tensors and numbers that can be copied and saved."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What Adam keeps for each parameter, besides the number of steps."""


class State(NamedTuple):
    """All that later steps depend on."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    """Values that JSON can hold."""

    def copy(self) -> Self:
        """Return a state that later steps do not change."""
        return type(self)({name: tensor.clone() for name, tensor in self.tensors.items()}, dict(self.numbers))

    def saved(self) -> Self:
        """Return a copy on the CPU, to be written while training goes on."""
        tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.tensors.items()}
        return type(self)(tensors, dict(self.numbers))


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Return the number of bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def in_folder(folder: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Prefix the names of tensors: folder/name."""
    return {f"{folder}/{name}": tensor for name, tensor in tensors.items()}


def of_folder(folder: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names `in_folder` prefixed, without the prefix."""
    prefix = folder + "/"
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's moments, named NUMBER/NAME by the number of the parameter."""
    states = optimizer.state_dict()["state"]
    return {f"{number}/{name}": value for number, state in states.items() for name, value in state.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Set an optimizer's moments to copies of what `optimizer_tensors` returned."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, key = name.split("/")
        states.setdefault(int(number), {})[key] = value.clone()
    parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    for index, state in states.items():
        if state.keys() != {"step", *MOMENTS} or any(
            state[name].shape != parameters[index].shape for name in MOMENTS
        ):
            raise ValueError(f"the moments of parameter {index} do not fit it")
    optimizer.state.clear()  # of parameters that may have been replaced
    optimizer.load_state_dict(optimizer.state_dict() | {"state": states})
