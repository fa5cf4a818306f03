"""A small MLP by torch's matrix products; what lies between the layers is not kept, but computed again."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unrender.kernels.tiny_mlp.reference import HIDDEN, MAX_EXPONENT, OUTPUT


def forward(
    inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], hidden: str, output: str
) -> Tensor:
    values = _layers(inputs, weights, biases, hidden)[-1]
    return OUTPUT[output](torch.addmm(biases[-1], values, weights[-1].contiguous().mT))


def backward(
    inputs: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    hidden: str,
    output: str,
    found: Tensor,
    cotangent: Tensor,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """`wanted` says which of inputs, weights and biases need a gradient; `found` is what forward returned."""
    layers = _layers(inputs, weights, biases, hidden)
    slopes, to_weights, to_biases = _by_channels(cotangent * _slope(output, found)), [], []
    for n in range(len(weights) - 1, -1, -1):
        to_weights.append(slopes.mT @ layers[n])
        to_biases.append(slopes.sum(0))
        if n > 0 or wanted[0]:
            slopes = slopes @ weights[n].contiguous()
        if n > 0:
            slopes = slopes * _slope(hidden, layers[n])
    return slopes if wanted[0] else None, *reversed(to_weights), *reversed(to_biases)


def _layers(inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], hidden: str) -> list[Tensor]:
    """Return the inputs of all layers."""
    layers = [_by_channels(inputs)]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        layers.append(HIDDEN[hidden](torch.addmm(bias, layers[-1], weight.contiguous().mT)))
    return layers


def _by_channels(values: Tensor) -> Tensor:
    """Return values whose channels follow one another in memory, as `hash_grid` gives them: one layout, one result."""
    if values.stride() == (1, len(values)):
        return values
    return values.new_empty(values.shape[::-1]).copy_(values.mT).mT


def _slope(name: str, found: Tensor) -> Tensor | float:
    """Return the slopes of an activation, which are known from its results."""
    if name == "relu":
        return (found > 0).to(found.dtype)
    if name == "softplus":
        return -torch.expm1(-found)
    if name == "exp":
        return found.clamp(max=math.exp(MAX_EXPONENT))
    return found * (1 - found) if name == "sigmoid" else 1.0
