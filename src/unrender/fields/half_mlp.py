"""Small MLPs in half precision, channel by channel: values of a layer are [channels, samples]."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

MAX_ACTIVATION = 16384.0
"""Hidden activations are clamped, so that their weighted sums fit in half precision."""
Linear = tuple[Tensor, Tensor]
"""Weight [outputs, inputs] and bias of a layer."""


def _padded(size: int) -> int:
    return -(-size // 8) * 8


class HalfMlp:
    """The weights of an MLP, in single and half precision, with their gradients.

    Each layer is one matrix whose column after those of the weight is the bias: inputs have a row of ones.
    """

    def __init__(self, sizes: Sequence[int], output_rows: int) -> None:
        self.sizes, self.output_rows = tuple(sizes), output_rows
        rows = [*sizes[1:-1], output_rows]
        self.shapes = [(n, _padded(inputs + 1)) for n, inputs in zip(rows, sizes[:-1], strict=True)]
        self.num_weights = sum(rows * columns for rows, columns in self.shapes)

    def place(self, flat: Tensor, active: Tensor, gradient: Tensor) -> None:
        """Use these buffers: weights in single precision, in half precision, and gradients in single precision."""
        self.weights, self.active, self.gradients = map(self._matrices, (flat, active, gradient))

    def _matrices(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split([rows * columns for rows, columns in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def indices(self, first: int) -> list[Tensor]:
        """Return the indices of the weight and the bias of each layer in a buffer whose weights start at `first`."""
        found: list[Tensor] = []
        for matrix, size in zip(
            self._matrices(torch.arange(first, first + self.num_weights)), self.sizes, strict=False
        ):
            rows = self.sizes[len(found) // 2 + 1]
            found += [matrix[:rows, :size], matrix[:rows, size]]
        return found

    def forward(self, values: "Activations") -> None:
        """Compute `values.outputs` from the first of `values.inputs`, as many rows of it as there are."""
        for n, (weight, size) in enumerate(zip(self.active[:-1], self.sizes[1:], strict=False)):
            hidden = values.inputs[n + 1][:size]
            torch.mm(weight, values.inputs[n], out=hidden)
            torch.clamp(hidden, 0.0, MAX_ACTIVATION, out=hidden)
        multiply(self.active[-1][: len(values.outputs)], values.inputs[-1], values.outputs)

    def backward(self, values: "Activations", input_rows: int) -> None:
        """Compute gradients of the weights and of the first input rows from the last of `values.gradients`."""
        for n in range(len(self.weights) - 1, -1, -1):
            above = values.gradients[n + 1]
            multiply(above, values.inputs[n].mT, self.gradients[n])
            size = self.sizes[n] if n > 0 else input_rows
            below = values.gradients[n][:size]
            torch.mm(self.active[n][:, :size].mT, above, out=below)
            if n > 0:
                torch.ops.aten.threshold_backward.grad_input(
                    below, values.inputs[n][:size], 0, grad_input=below
                )


class Activations:
    """Inputs of all layers, the outputs and, where they are needed, gradients by both."""

    def __init__(self, mlp: HalfMlp, capacity: int, *, output_rows: int | None = None, trains: bool = True):
        half = mlp.active[0]
        self.inputs = [half.new_zeros(columns, capacity) for _, columns in mlp.shapes]
        for size, values in zip(mlp.sizes, self.inputs, strict=False):
            values[size] = 1
        self.outputs = mlp.weights[0].new_zeros(output_rows or mlp.output_rows, capacity)
        sizes = [*mlp.sizes[:-1], mlp.output_rows] if trains else []
        self.gradients = [half.new_zeros(size, capacity) for size in sizes]


def multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Multiply matrices in half precision into one in single precision."""
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    elif left.device.type == "cpu":
        torch.mm(left.float(), right.float(), out=out)
    elif _has_mixed_products(left.device):
        torch.ops.aten.mm.dtype_out(left, right, out.dtype, out=out)
    else:
        out.copy_(left @ right)


@functools.cache
def _has_mixed_products(device: torch.device) -> bool:
    """Return whether torch multiplies half-precision matrices into single precision; older versions do not."""
    ones = torch.ones(8, 8, dtype=torch.float16, device=device)
    try:
        torch.ops.aten.mm.dtype_out(ones, ones, torch.float32, out=ones.float())
    except (AttributeError, RuntimeError):
        return False
    return True
