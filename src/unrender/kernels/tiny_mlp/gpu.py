"""A small MLP by torch's matrix products; hidden activations are recomputed in the backward pass."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unrender.kernels.tiny_mlp.reference import HIDDEN, MAX_EXPONENT, OUTPUT


def forward(
    inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], hidden: str, output: str
) -> Tensor:
    values = _layers(inputs, weights, biases, hidden)[-1]
    return OUTPUT[output](_linear(values, weights[-1], biases[-1]))


def backward(
    inputs: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    hidden: str,
    output: str,
    result: Tensor,
    grad_output: Tensor,
    needs_grad: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Compute the gradients of inputs, weights and biases for which `needs_grad` is true; `result` is of `forward`."""
    layers = _layers(inputs, weights, biases, hidden)
    gradients, grad_weights, grad_biases = _by_channels(grad_output * _derivative(output, result)), [], []
    for n in range(len(weights) - 1, -1, -1):
        grad_weights.append(gradients.mT @ layers[n])
        grad_biases.append(gradients.sum(0))
        if n > 0 or needs_grad[0]:
            gradients = gradients @ weights[n].contiguous()
        if n > 0:
            gradients = gradients * _derivative(hidden, layers[n])
    return gradients if needs_grad[0] else None, *reversed(grad_weights), *reversed(grad_biases)


def _layers(inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], hidden: str) -> list[Tensor]:
    """Return the inputs of all layers."""
    layers = [_by_channels(inputs)]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        layers.append(HIDDEN[hidden](_linear(layers[-1], weight, bias)))
    return layers


def _linear(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Multiply by a layer; cuBLAS chooses its algorithm, and so the bits, by how weights and bias are stored."""
    return torch.addmm(bias.contiguous(), values, weight.contiguous().mT)


def _by_channels(values: Tensor) -> Tensor:
    """Return values with each channel contiguous in memory, as `hash_grid` returns them, for reproducible sums."""
    if values.stride() == (1, len(values)):
        return values
    return values.new_empty(values.shape[::-1]).copy_(values.mT).mT


def _derivative(name: str, result: Tensor) -> Tensor | float:
    """Return the derivative of an activation, computed from its results."""
    if name == "relu":
        return (result > 0).to(result.dtype)
    if name == "softplus":
        return -torch.expm1(-result)
    if name == "exp":
        return result.clamp(max=math.exp(MAX_EXPONENT))
    return result * (1 - result) if name == "sigmoid" else 1.0
