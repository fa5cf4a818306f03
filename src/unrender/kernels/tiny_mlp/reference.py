"""Reference implementation of a small MLP."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MAX_EXPONENT = 15.0
"""Limit of the exponent in the gradient of `exp`."""


def forward(
    inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], hidden: str, output: str
) -> Tensor:
    """Return output(W_L … hidden(W_2 hidden(W_1 x + b_1) + b_2) … + b_L)."""
    values = inputs
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        values = HIDDEN[hidden](values @ weight.mT + bias)
    return OUTPUT[output](values @ weights[-1].mT + biases[-1])


def _softplus(values: Tensor) -> Tensor:
    """Return log(1 + e^x)."""
    return torch.logaddexp(values, values.new_zeros(()))


def truncated_exp(values: Tensor) -> Tensor:
    """Compute e^x with the gradient e^min(x, 15), which stays finite for large densities."""
    derivative = values.detach().clamp(max=MAX_EXPONENT).exp()
    return values.detach().exp() + derivative * (values - values.detach())


HIDDEN: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "softplus": _softplus}
OUTPUT: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda values: values,
    "relu": torch.relu,
    "softplus": _softplus,
    "exp": truncated_exp,
    "sigmoid": torch.sigmoid,
}
