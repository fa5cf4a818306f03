"""Normals of vertices: one thread per vertex, which sums over its faces in a fixed order."""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._incidence import incidence
from unrender.kernels._warp import TORCH_TYPES, Precision, launch, per_precision
from unrender.kernels.normalize.reference import min_length


def forward(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    (*axes, count, _), points = vertices.shape, vertices.contiguous()
    normals, sums = points.new_empty(points.shape), points.new_empty(*axes, 3, count)
    arrays, size = (faces.long().contiguous(), *incidence(faces, count)), (points.shape[:-2].numel(), count)
    launch(normal_kernels(vertices.dtype).add, size, points, *arrays, sums, normals)
    return normals, sums


def backward(vertices: Tensor, faces: Tensor, sums: Tensor, grad_output: Tensor) -> Tensor:
    count, points = vertices.shape[-2], vertices.contiguous()
    arrays, size = (faces.long().contiguous(), *incidence(faces, count)), (points.shape[:-2].numel(), count)
    gradient = points.new_empty(points.shape)
    kernels = normal_kernels(vertices.dtype)
    launch(kernels.gather, size, points, *arrays, sums, grad_output.contiguous(), gradient)
    return gradient


@per_precision("vertex_normals")
def normal_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec3 = types.scalar, types.vec3
    zero = scalar(0.0)
    shortest = scalar(min_length(torch.empty(0, dtype=TORCH_TYPES[types.scalar])))

    @types.kernel
    def add(
        points: wp.array2d(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        starts: wp.array(dtype=wp.int64),
        places: wp.array(dtype=wp.int64),
        sums: wp.array3d(dtype=scalar),
        normals: wp.array2d(dtype=vec3),
    ):
        b, i = wp.tid()
        total = vec3(zero)
        for n in range(int(starts[i]), int(starts[i + 1])):
            face = int(places[n]) // 3
            start = points[b, int(faces[face, 0])]
            total += wp.cross(points[b, int(faces[face, 1])] - start, points[b, int(faces[face, 2])] - start)
        for axis in range(3):
            sums[b, axis, i] = total[axis]
        length = wp.length(total)
        normals[b, i] = vec3(zero)
        if not length <= shortest:  # NaN surfaces
            normals[b, i] = total / length

    @wp.func
    def grad_of_sum(sums: wp.array3d(dtype=scalar), grad_output: wp.array2d(dtype=vec3), b: int, i: int):
        """Return the gradient of a sum from that of its direction."""
        total = vec3(sums[b, 0, i], sums[b, 1, i], sums[b, 2, i])
        length = wp.length(total)
        if length <= shortest:
            return vec3(zero)
        normal = total / length
        return (grad_output[b, i] - wp.dot(grad_output[b, i], normal) * normal) / length

    @types.kernel
    def gather(
        points: wp.array2d(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        starts: wp.array(dtype=wp.int64),
        places: wp.array(dtype=wp.int64),
        sums: wp.array3d(dtype=scalar),
        grad_output: wp.array2d(dtype=vec3),
        gradient: wp.array2d(dtype=vec3),
    ):
        b, i = wp.tid()
        total = vec3(zero)
        for n in range(int(starts[i]), int(starts[i + 1])):
            face, corner = int(places[n]) // 3, int(places[n]) % 3
            grad = vec3(zero)
            for k in range(3):
                grad += grad_of_sum(sums, grad_output, b, int(faces[face, k]))
            following = points[b, int(faces[face, (corner + 1) % 3])]
            preceding = points[b, int(faces[face, (corner + 2) % 3])]
            total += wp.cross(following - preceding, grad)
        gradient[b, i] = total

    return SimpleNamespace(add=add, gather=gather)
