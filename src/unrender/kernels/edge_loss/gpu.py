"""Edge lengths: one thread per edge; backward, one thread per vertex, which sums over its edges in a fixed order."""

from types import SimpleNamespace

import warp as wp
from torch import Tensor

from unrender.kernels._incidence import incidence
from unrender.kernels._warp import Precision, launch, per_precision


def forward(vertices: Tensor, edges: Tensor, target_length: float) -> Tensor:
    batch, points = vertices.shape[:-2].numel(), vertices.contiguous()
    terms = vertices.new_empty(batch, len(edges))
    kernels = edge_kernels(vertices.dtype)
    launch(kernels.measure, (batch, len(edges)), points, edges.mT.contiguous(), target_length, terms)
    return terms.sum()


def backward(vertices: Tensor, edges: Tensor, target_length: float, grad_output: Tensor) -> Tensor:
    count, points = vertices.shape[-2], vertices.contiguous()
    gradient, around = points.new_empty(points.shape), incidence(edges, count)
    kernels, size = edge_kernels(vertices.dtype), (vertices.shape[:-2].numel(), count)
    launch(
        kernels.gather,
        size,
        points,
        edges.mT.contiguous(),
        *around,
        target_length,
        grad_output.contiguous(),
        gradient,
    )
    return gradient


@per_precision("edge_loss")
def edge_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec3 = types.scalar, types.vec3
    zero, one, two = scalar(0.0), scalar(1.0), scalar(2.0)

    @types.kernel
    def measure(
        points: wp.array2d(dtype=vec3),
        edges: wp.array2d(dtype=wp.int64),
        target_length: scalar,
        terms: wp.array2d(dtype=scalar),
    ):
        b, edge = wp.tid()
        length = wp.length(points[b, int(edges[1, edge])] - points[b, int(edges[0, edge])]) - target_length
        terms[b, edge] = length * length / scalar(terms.shape[0] * terms.shape[1])

    @types.kernel
    def gather(
        points: wp.array2d(dtype=vec3),
        edges: wp.array2d(dtype=wp.int64),
        starts: wp.array(dtype=wp.int64),
        places: wp.array(dtype=wp.int64),
        target_length: scalar,
        grad_output: wp.array(dtype=scalar),
        gradient: wp.array2d(dtype=vec3),
    ):
        b, i = wp.tid()
        total = vec3(zero)
        for n in range(int(starts[i]), int(starts[i + 1])):
            edge, end = int(places[n]) // 2, int(places[n]) % 2
            vector = points[b, i] - points[b, int(edges[1 - end, edge])]
            if target_length == zero:
                total += vector
            else:
                length = wp.length(vector)
                if length > zero:
                    total += (one - target_length / length) * vector
        gradient[b, i] = two * grad_output[0] / scalar(wp.max(points.shape[0] * edges.shape[1], 1)) * total

    return SimpleNamespace(measure=measure, gather=gather)
