"""Fused evaluation of small MLPs."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked, describe_value
from unrender.errors import InputError, ShapeError
from unrender.kernels._dispatch import implementation
from unrender.kernels.tiny_mlp import reference

MAX_WIDTH = 128


@checked
def tiny_mlp(
    inputs: Float[Tensor, "points inputs"],
    weights: Sequence[Float[Tensor, "outputs inputs"]],
    biases: Sequence[Float[Tensor, " outputs"]],
    *,
    hidden: Literal["relu", "softplus"] = "relu",
    output: Literal["none", "relu", "softplus", "exp", "sigmoid"] = "none",
) -> Float[Tensor, "points outputs"]:
    """Evaluate a small MLP for many points: output(W_L … hidden(W_1 x + b_1) … + b_L).

    Layers may be up to 128 wide. Weights and biases have the layout of `torch.nn.Linear`, one of each per layer; at
    least one layer. softplus is log(1 + e^x). exp is the truncated exponential of instant-ngp, e^x with the gradient
    e^min(x, 15).

    Differentiable in: inputs, weights, biases (not twice). The gradient of relu at 0 is 0. Hidden activations are not
    stored but recomputed in the backward pass: memory is that of inputs and outputs.
    On the CPU the result is a transposed view, with the values of one output contiguous in memory. Inputs in the same
    layout, as those of `hash_grid`, are read fastest.
    """
    _check(inputs, weights, biases, hidden, output)
    fast = implementation("tiny_mlp", inputs.device)
    if fast is None:
        return reference.forward(inputs, weights, biases, hidden, output)
    found: Tensor = _TinyMlp.apply(fast, hidden, output, inputs, *weights, *biases)
    return found


def _check(
    inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], hidden: str, output: str
) -> None:
    if hidden not in reference.HIDDEN or output not in reference.OUTPUT:
        raise InputError(
            f"tiny_mlp: `hidden` should be one of {', '.join(reference.HIDDEN)}, and `output` one of "
            f"{', '.join(reference.OUTPUT)}; got {hidden!r} and {output!r}"
        )
    if not weights or len(weights) != len(biases):
        raise ShapeError(
            "tiny_mlp: `weights` and `biases` should have one entry per layer, at least one, "
            f"got {len(weights)} and {len(biases)}"
        )
    width = inputs.shape[1]
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        fits = weight.dim() == 2 and weight.shape[1] == width and bias.shape == weight.shape[:1]
        if not fits or weight.dtype != inputs.dtype or bias.dtype != inputs.dtype:
            raise ShapeError(
                f"tiny_mlp: `weights[{layer}]` should be [outputs, {width}] and `biases[{layer}]` [outputs], "
                f"{inputs.dtype} as `inputs`, got {describe_value(weight)} and {describe_value(bias)}"
            )
        width = weight.shape[0]
    widths = [inputs.shape[1], *(len(bias) for bias in biases)]
    if not all(1 <= width <= MAX_WIDTH for width in widths):
        raise ShapeError(f"tiny_mlp: inputs and layers should be 1 to {MAX_WIDTH} wide, got {widths}")


class _TinyMlp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, fast: ModuleType, hidden: str, output: str, inputs: Tensor, *layers: Tensor
    ) -> Tensor:
        half = len(layers) // 2
        found: Tensor = fast.forward(inputs, layers[:half], layers[half:], hidden, output)
        ctx.known = fast, hidden, output
        ctx.save_for_backward(inputs, *layers, *([] if output == "none" else [found]))
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        fast, hidden, output = ctx.known
        inputs, *saved = ctx.saved_tensors
        layers, found = (saved, grad_output) if output == "none" else (saved[:-1], saved[-1])
        half = len(layers) // 2
        known = (inputs, layers[:half], layers[half:], hidden, output, found, grad_output)
        return None, None, None, *fast.backward(*known, ctx.needs_input_grad[3:])
