"""Surface samples; one thread for each face, then one for each sample.

Areas are added up as integers, in units of 2⁻⁴⁰ of the largest. Gradients of vertices are added in fixed point.
"""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._fixed_point import from_sums
from unrender.kernels._warp import (
    TORCH_TYPES,
    Precision,
    count_log2,
    in_units,
    launch,
    per_precision,
    record_term,
    unit_exponent,
)
from unrender.kernels.normalize.reference import min_length


def forward(
    vertices: Tensor, faces: Tensor, jitter: Tensor, uv: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    points, corners, batch = vertices.contiguous(), faces.long().contiguous(), vertices.shape[:-2].numel()
    areas = torch.empty(batch, len(faces), dtype=torch.float64, device=vertices.device)
    max_term = torch.zeros(batch, dtype=torch.int64, device=vertices.device)
    counts, kernels = torch.empty_like(areas, dtype=torch.int64), sample_kernels(vertices.dtype)
    launch(kernels.measure, areas.shape, points, corners, areas, max_term)
    launch(kernels.count, areas.shape, areas, max_term, counts)
    ends, drawn = counts.cumsum(-1), [vertices.new_empty(*jitter.shape, 3) for _ in range(3)]
    face_ids = torch.empty(jitter.shape, dtype=torch.int64, device=vertices.device)
    random = (jitter.contiguous(), uv.contiguous().view(2, batch, -1))
    size = (batch, jitter.shape[-1]) if len(faces) else 0
    launch(kernels.draw, size, points, corners, ends, *random, face_ids, *drawn)
    return drawn[0], drawn[1], face_ids, drawn[2]


def backward(
    vertices: Tensor,
    faces: Tensor,
    face_ids: Tensor,
    barycentric: Tensor,
    grad_points: Tensor | None,
    grad_normals: Tensor | None,
) -> Tensor | None:
    upstream = [None if grad is None else grad.contiguous() for grad in (grad_points, grad_normals)]
    sums = torch.zeros(vertices.numel() + 1, dtype=torch.int64, device=vertices.device)
    arguments = (vertices.contiguous(), faces.long().contiguous(), face_ids, barycentric, *upstream)
    kernels, bits = sample_kernels(vertices.dtype), count_log2(3 * face_ids.shape[-1])
    size, sums, max_term = (vertices.shape[:-2].numel(), face_ids.shape[-1]), sums[:-1], sums[-1:]
    for accumulates in (0, 1):
        launch(kernels.scatter, size, *arguments, bits, accumulates, max_term, sums)
    return from_sums(sums, max_term, bits, vertices.dtype).view(vertices.shape)


@per_precision("surface_samples")
def sample_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec3 = types.scalar, types.vec3
    zero, one = scalar(0.0), scalar(1.0)
    shortest = scalar(min_length(torch.empty(0, dtype=TORCH_TYPES[types.scalar])))
    units = wp.constant(wp.float64(2.0**40))

    @wp.func
    def corner(points: wp.array2d(dtype=vec3), faces: wp.array2d(dtype=wp.int64), b: int, face: int, k: int):
        return points[b, int(faces[face, k])]

    @types.kernel
    def measure(
        points: wp.array2d(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        areas: wp.array2d(dtype=wp.float64),
        max_term: wp.array(dtype=wp.int64),
    ):
        b, face = wp.tid()
        start = corner(points, faces, b, face, 0)
        across = wp.cross(
            corner(points, faces, b, face, 1) - start, corner(points, faces, b, face, 2) - start
        )
        area = wp.float64(wp.length(across)) / wp.float64(2.0)
        areas[b, face] = area
        bits = wp.cast(area, wp.int64)
        if bits > max_term[b]:
            wp.atomic_max(max_term, b, bits)

    @types.kernel
    def count(
        areas: wp.array2d(dtype=wp.float64),
        max_term: wp.array(dtype=wp.int64),
        counts: wp.array2d(dtype=wp.int64),
    ):
        b, face = wp.tid()
        counts[b, face] = wp.int64(0)
        if max_term[b] > wp.int64(0):
            fraction = areas[b, face] / wp.cast(max_term[b], wp.float64)
            counts[b, face] = wp.int64(wp.rint(fraction * units))

    @types.kernel
    def draw(
        points: wp.array2d(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        ends: wp.array2d(dtype=wp.int64),
        jitter: wp.array2d(dtype=wp.float64),
        uv: wp.array3d(dtype=scalar),
        face_ids: wp.array2d(dtype=wp.int64),
        drawn: wp.array2d(dtype=vec3),
        normals: wp.array2d(dtype=vec3),
        barycentric: wp.array2d(dtype=vec3),
    ):
        b, i = wp.tid()
        last = ends.shape[1] - 1
        stratum = wp.float64(ends[b, last]) / wp.float64(jitter.shape[1])
        quantile = (wp.float64(i) + jitter[b, i]) * stratum
        low, high = int(0), int(last)
        while low < high:
            middle = (low + high) // 2
            if wp.float64(ends[b, middle]) > quantile:
                high = middle
            else:
                low = middle + 1
        face_ids[b, i] = wp.int64(low)
        root, v = wp.sqrt(uv[0, b, i]), uv[1, b, i]
        weights = vec3(one - root, root * (one - v), root * v)
        one_corner = corner(points, faces, b, low, 0)
        two, three = corner(points, faces, b, low, 1), corner(points, faces, b, low, 2)
        drawn[b, i] = weights[0] * one_corner + weights[1] * two + weights[2] * three
        barycentric[b, i] = weights
        across = wp.cross(two - one_corner, three - one_corner)
        length = wp.length(across)
        normals[b, i] = vec3(zero)
        if not length <= shortest:  # NaN surfaces
            normals[b, i] = across / length

    @types.kernel
    def scatter(
        points: wp.array2d(dtype=vec3),
        faces: wp.array2d(dtype=wp.int64),
        face_ids: wp.array2d(dtype=wp.int64),
        barycentric: wp.array2d(dtype=vec3),
        grad_points: wp.array2d(dtype=vec3),
        grad_normals: wp.array2d(dtype=vec3),
        bits: int,
        accumulates: int,
        max_term: wp.array(dtype=wp.int64),
        sums: wp.array(dtype=wp.int64),
    ):
        """Record the largest term or, in a second launch, accumulate the gradients of vertices."""
        b, i = wp.tid()
        face = int(face_ids[b, i])
        grad_point, grad_area = vec3(zero), vec3(zero)
        if grad_points.shape[0] > 0:
            grad_point = grad_points[b, i]
        if grad_normals.shape[0] > 0:
            start = corner(points, faces, b, face, 0)
            across = wp.cross(
                corner(points, faces, b, face, 1) - start, corner(points, faces, b, face, 2) - start
            )
            length = wp.length(across)
            if length > shortest:
                normal = across / length
                grad_area = (grad_normals[b, i] - wp.dot(grad_normals[b, i], normal) * normal) / length
        exponent = int(0)
        if accumulates == 1:
            exponent = unit_exponent(max_term[0], bits)
        for k in range(3):
            side = corner(points, faces, b, face, (k + 1) % 3) - corner(points, faces, b, face, (k + 2) % 3)
            term = barycentric[b, i][k] * grad_point + wp.cross(side, grad_area)
            for axis in range(3):
                if accumulates == 1:
                    index = (b * points.shape[1] + int(faces[face, k])) * 3 + axis
                    wp.atomic_add(sums, index, in_units(wp.float64(term[axis]), exponent))
                else:
                    record_term(wp.float64(term[axis]), max_term)

    return SimpleNamespace(measure=measure, count=count, draw=draw, scatter=scatter)
