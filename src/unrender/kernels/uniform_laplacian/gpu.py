"""Means of neighbors: one thread per vertex, which sums over its neighbors in a fixed order."""

from types import SimpleNamespace

import warp as wp
from torch import Tensor

from unrender.kernels._incidence import incidence
from unrender.kernels._warp import Precision, launch, per_precision


def forward(vertices: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    (*axes, count, _), batch = vertices.shape, vertices.shape[:-2].numel()
    terms, offsets = vertices.new_empty(batch, count), vertices.new_empty(*axes, 3, count)
    arrays = (edges.mT.contiguous(), *incidence(edges, count))
    launch(
        laplacian_kernels(vertices.dtype).measure,
        (batch, count),
        vertices.contiguous(),
        *arrays,
        offsets,
        terms,
    )
    return terms.sum(), offsets


def backward(vertices: Tensor, edges: Tensor, offsets: Tensor, grad_output: Tensor) -> Tensor:
    gradient, count = vertices.new_empty(vertices.shape), vertices.shape[-2]
    arrays = (edges.mT.contiguous(), *incidence(edges, count))
    size = (vertices.shape[:-2].numel(), count)
    launch(
        laplacian_kernels(vertices.dtype).gather, size, offsets, *arrays, grad_output.contiguous(), gradient
    )
    return gradient


@per_precision("uniform_laplacian")
def laplacian_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec3 = types.scalar, types.vec3
    zero = scalar(0.0)

    @types.kernel
    def measure(
        points: wp.array2d(dtype=vec3),
        edges: wp.array2d(dtype=wp.int64),
        starts: wp.array(dtype=wp.int64),
        places: wp.array(dtype=wp.int64),
        offsets: wp.array3d(dtype=scalar),
        terms: wp.array2d(dtype=scalar),
    ):
        b, i = wp.tid()
        first, last = int(starts[i]), int(starts[i + 1])
        offset = vec3(zero)
        for n in range(first, last):
            edge, end = int(places[n]) // 2, int(places[n]) % 2
            offset += points[b, int(edges[1 - end, edge])] - points[b, i]
        if last > first:
            offset = offset / scalar(last - first)
        for axis in range(3):
            offsets[b, axis, i] = offset[axis]
        terms[b, i] = wp.length(offset) / scalar(terms.shape[0] * terms.shape[1])

    @wp.func
    def direction(offsets: wp.array3d(dtype=scalar), b: int, i: int):
        offset = vec3(offsets[b, 0, i], offsets[b, 1, i], offsets[b, 2, i])
        length = wp.length(offset)
        if length <= zero:
            return vec3(zero)
        return offset / length

    @types.kernel
    def gather(
        offsets: wp.array3d(dtype=scalar),
        edges: wp.array2d(dtype=wp.int64),
        starts: wp.array(dtype=wp.int64),
        places: wp.array(dtype=wp.int64),
        grad_output: wp.array(dtype=scalar),
        gradient: wp.array2d(dtype=vec3),
    ):
        b, i = wp.tid()
        total = vec3(zero)
        first, last = int(starts[i]), int(starts[i + 1])
        for n in range(first, last):
            edge, end = int(places[n]) // 2, int(places[n]) % 2
            neighbor = int(edges[1 - end, edge])
            total += direction(offsets, b, neighbor) / scalar(starts[neighbor + 1] - starts[neighbor])
        if last > first:
            total -= direction(offsets, b, i)
        gradient[b, i] = grad_output[0] / scalar(gradient.shape[0] * gradient.shape[1]) * total

    return SimpleNamespace(measure=measure, gather=gather)
