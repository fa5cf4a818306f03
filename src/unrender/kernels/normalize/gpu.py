"""Lengths and directions of vectors; one thread per vector."""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision
from unrender.kernels.normalize.reference import min_length


def forward(columns: Tensor) -> tuple[Tensor, Tensor]:
    vectors = columns.detach().contiguous()
    units, lengths = torch.empty_like(vectors), vectors.new_empty(*vectors.shape[:-2], vectors.shape[-1])
    kernels = normalize_kernels(columns.dtype)
    launch(kernels.divide, _size(lengths), vectors, min_length(columns), units, lengths)
    return units, lengths


def backward(
    columns: Tensor, lengths: Tensor, grad_units: Tensor | None, grad_lengths: Tensor | None
) -> Tensor:
    vectors = columns.detach().contiguous()
    upstream = [None if grad is None else grad.contiguous() for grad in (grad_units, grad_lengths)]
    gradient, kernels = torch.empty_like(vectors), normalize_kernels(columns.dtype)
    launch(
        kernels.divide_backward, _size(lengths), vectors, min_length(columns), lengths, *upstream, gradient
    )
    return gradient


def _size(lengths: Tensor) -> tuple[int, int]:
    count = lengths.shape[-1]
    return lengths.numel() // max(count, 1), count


@per_precision("normalize")
def normalize_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar = types.scalar
    zero = scalar(0.0)

    @types.kernel
    def divide(
        vectors: wp.array3d(dtype=scalar),
        min_length: scalar,
        units: wp.array3d(dtype=scalar),
        lengths: wp.array2d(dtype=scalar),
    ):
        b, i = wp.tid()
        squared = scalar(0.0)
        for axis in range(vectors.shape[1]):
            squared += vectors[b, axis, i] * vectors[b, axis, i]
        length = wp.sqrt(squared)
        lengths[b, i] = length
        for axis in range(vectors.shape[1]):
            units[b, axis, i] = zero
            if not length <= min_length:  # NaN surfaces
                units[b, axis, i] = vectors[b, axis, i] / length

    @types.kernel
    def divide_backward(
        vectors: wp.array3d(dtype=scalar),
        min_length: scalar,
        lengths: wp.array2d(dtype=scalar),
        grad_units: wp.array3d(dtype=scalar),
        grad_lengths: wp.array2d(dtype=scalar),
        gradient: wp.array3d(dtype=scalar),
    ):
        """Compute (s − u (u · s)) / |v| + u t, with the gradients s of the direction u and t of the length."""
        b, i = wp.tid()
        length = lengths[b, i]
        inverse, along, scale = scalar(0.0), scalar(0.0), scalar(0.0)
        if not length <= zero:
            inverse = scalar(1.0) / length
        if grad_lengths.shape[0] > 0:
            along = grad_lengths[b, i]
        if grad_units.shape[0] > 0 and not length <= min_length:
            scale = inverse
            for axis in range(vectors.shape[1]):
                along -= vectors[b, axis, i] * inverse * grad_units[b, axis, i] * inverse
        for axis in range(vectors.shape[1]):
            grad = vectors[b, axis, i] * inverse * along
            if scale != zero:
                grad += grad_units[b, axis, i] * scale
            gradient[b, axis, i] = grad

    return SimpleNamespace(divide=divide, divide_backward=divide_backward)
