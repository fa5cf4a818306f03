"""Angles between faces: one thread per hinge; backward, one per vertex, which sums over the hinges of its faces."""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._incidence import incidence
from unrender.kernels._warp import TORCH_TYPES, Precision, launch, per_precision
from unrender.kernels.normalize.reference import min_length


def forward(vertices: Tensor, faces: Tensor, hinge_faces: Tensor, hinge_signs: Tensor) -> Tensor:
    batch, num_hinges = vertices.shape[:-2].numel(), len(hinge_faces)
    terms = vertices.new_empty(batch, num_hinges)
    arrays = _arrays(vertices, faces, hinge_faces, hinge_signs)
    launch(hinge_kernels(vertices.dtype).measure, (batch, num_hinges), *arrays, terms)
    return terms.sum()


def backward(
    vertices: Tensor, faces: Tensor, hinge_faces: Tensor, hinge_signs: Tensor, grad_output: Tensor
) -> Tensor:
    arrays = _arrays(vertices, faces, hinge_faces, hinge_signs)
    gradient = arrays[0].new_empty(vertices.shape)
    around, hinges = incidence(faces, vertices.shape[-2]), incidence(hinge_faces, len(faces))
    size = (vertices.shape[:-2].numel(), vertices.shape[-2])
    kernels = hinge_kernels(vertices.dtype)
    launch(kernels.gather, size, *arrays, *around, *hinges, grad_output.contiguous(), gradient)
    return gradient


def _arrays(vertices: Tensor, faces: Tensor, hinge_faces: Tensor, hinge_signs: Tensor) -> tuple[Tensor, ...]:
    corners = faces.long().contiguous()
    return vertices.contiguous(), corners, hinge_faces.mT.contiguous(), hinge_signs.contiguous()


@per_precision("normal_consistency")
def hinge_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec3 = types.scalar, types.vec3
    zero, one = scalar(0.0), scalar(1.0)
    shortest = scalar(min_length(torch.empty(0, dtype=TORCH_TYPES[types.scalar])))

    @wp.func
    def area_vector(points: wp.array2d(dtype=vec3), faces: wp.array2d(dtype=wp.int64), b: int, face: int):
        start = points[b, int(faces[face, 0])]
        return wp.cross(points[b, int(faces[face, 1])] - start, points[b, int(faces[face, 2])] - start)

    @wp.func
    def unit(vector: vec3):
        length = wp.length(vector)
        if length <= shortest:
            return vec3(zero)
        return vector / length

    @types.kernel
    def measure(
        points: wp.array2d(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        hinge_faces: wp.array2d(dtype=wp.int64),
        hinge_signs: wp.array(dtype=wp.int64),
        terms: wp.array2d(dtype=scalar),
    ):
        b, hinge = wp.tid()
        normal = unit(area_vector(points, faces, b, int(hinge_faces[0, hinge])))
        other = unit(area_vector(points, faces, b, int(hinge_faces[1, hinge])))
        unlike = one - scalar(hinge_signs[hinge]) * wp.dot(normal, other)
        terms[b, hinge] = unlike / scalar(terms.shape[0] * terms.shape[1])

    @types.kernel
    def gather(
        points: wp.array2d(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        hinge_faces: wp.array2d(dtype=wp.int64),
        hinge_signs: wp.array(dtype=wp.int64),
        starts: wp.array(dtype=wp.int64),
        places: wp.array(dtype=wp.int64),
        hinge_starts: wp.array(dtype=wp.int64),
        hinge_places: wp.array(dtype=wp.int64),
        grad_output: wp.array(dtype=scalar),
        gradient: wp.array2d(dtype=vec3),
    ):
        b, i = wp.tid()
        total = vec3(zero)
        for n in range(int(starts[i]), int(starts[i + 1])):
            face, corner = int(places[n]) // 3, int(places[n]) % 3
            vector = area_vector(points, faces, b, face)
            length = wp.length(vector)
            if length > shortest:
                grad = vec3(zero)
                for m in range(int(hinge_starts[face]), int(hinge_starts[face + 1])):
                    hinge, side = int(hinge_places[m]) // 2, int(hinge_places[m]) % 2
                    other = unit(area_vector(points, faces, b, int(hinge_faces[1 - side, hinge])))
                    grad -= scalar(hinge_signs[hinge]) * other
                normal = vector / length
                grad = (grad - wp.dot(grad, normal) * normal) / length
                following = points[b, int(faces[face, (corner + 1) % 3])]
                preceding = points[b, int(faces[face, (corner + 2) % 3])]
                total += wp.cross(following - preceding, grad)
        gradient[b, i] = grad_output[0] / scalar(wp.max(points.shape[0] * hinge_faces.shape[1], 1)) * total

    return SimpleNamespace(measure=measure, gather=gather)
