"""Area vectors; one thread per face. Gradients of vertices are added in fixed point."""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._fixed_point import from_sums
from unrender.kernels._warp import (
    Precision,
    count_log2,
    in_units,
    launch,
    per_precision,
    record_term,
    unit_exponent,
)


def forward(columns: Tensor, faces: Tensor) -> Tensor:
    vertices = columns.detach().contiguous()
    vectors = columns.new_empty(*columns.shape[:-1], len(faces))
    size = (columns[..., 0, 0].numel(), len(faces)) if columns.numel() else 0
    launch(face_kernels(columns.dtype).compute, size, vertices, faces.long().contiguous(), vectors)
    return vectors


def backward(columns: Tensor, faces: Tensor, grad_output: Tensor) -> Tensor:
    inputs = (columns.detach().contiguous(), faces.long().contiguous(), grad_output.contiguous())
    sums = torch.zeros(columns.numel() + 1, dtype=torch.int64, device=columns.device)
    sums, max_term = sums[:-1], sums[-1:]
    kernels, bits = face_kernels(columns.dtype), count_log2(3 * len(faces))
    size = (columns[..., 0, 0].numel(), len(faces)) if columns.numel() else 0
    for accumulates in (0, 1):
        launch(kernels.scatter, size, *inputs, bits, accumulates, max_term, sums)
    return from_sums(sums, max_term, bits, columns.dtype).view(columns.shape)


@per_precision("face_vectors")
def face_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec3 = types.scalar, types.vec3

    @wp.func
    def column(columns: wp.array3d(dtype=scalar), b: int, i: int):
        return vec3(columns[b, 0, i], columns[b, 1, i], columns[b, 2, i])

    @types.kernel
    def compute(
        columns: wp.array3d(dtype=scalar),
        faces: wp.array2d(dtype=wp.int64),
        vectors: wp.array3d(dtype=scalar),
    ):
        b, face = wp.tid()
        start = column(columns, b, int(faces[face, 0]))
        one, two = column(columns, b, int(faces[face, 1])), column(columns, b, int(faces[face, 2]))
        vector = wp.cross(one - start, two - start)
        for axis in range(3):
            vectors[b, axis, face] = vector[axis]

    @types.kernel
    def scatter(
        columns: wp.array3d(dtype=scalar),
        faces: wp.array2d(dtype=wp.int64),
        grad_output: wp.array3d(dtype=scalar),
        bits: int,
        accumulates: int,
        max_term: wp.array(dtype=wp.int64),
        sums: wp.array(dtype=wp.int64),
    ):
        """Record the largest term or, in a second launch, accumulate the gradients of vertices."""
        b, face = wp.tid()
        start = column(columns, b, int(faces[face, 0]))
        one, two = column(columns, b, int(faces[face, 1])), column(columns, b, int(faces[face, 2]))
        grad = column(grad_output, b, face)
        grad_one, grad_two = wp.cross(two - start, grad), wp.cross(grad, one - start)
        terms = wp.matrix_from_rows(-grad_one - grad_two, grad_one, grad_two)
        exponent = int(0)
        if accumulates == 1:
            exponent = unit_exponent(max_term[0], bits)
        for corner in range(3):
            for axis in range(3):
                term = wp.float64(terms[corner, axis])
                if accumulates == 1:
                    index = (b * 3 + axis) * columns.shape[2] + int(faces[face, corner])
                    wp.atomic_add(sums, index, in_units(term, exponent))
                else:
                    record_term(term, max_term)

    return SimpleNamespace(compute=compute, scatter=scatter)
