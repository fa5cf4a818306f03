"""Soft silhouettes: each thread takes a chunk of a face's pixels, and adds the logarithm of its transparency to each.

Sums are in fixed point, so that they do not depend on the order of threads: those of logarithms in each pixel and, in
the backward pass, those of the gradients of each face's corners and of each vertex.
"""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._fixed_point import from_sums, max_magnitude
from unrender.kernels._warp import (
    Precision,
    count_log2,
    from_units,
    in_units,
    launch,
    per_precision,
    power_of_two,
    record_term,
    unit_exponent,
)
from unrender.kernels._warp_screen import CHUNK, chunk_face, first_pixel, project, screen_functions
from unrender.kernels.silhouette.reference import LOGIT_AT_BLUR

MAX_LOG2 = 6
"""Logarithms are clamped at −2^6, where the transparency vanishes."""


def forward(points: Tensor, faces: Tensor, height: int, width: int, blur: float, near: float) -> Tensor:
    flat = points.detach().reshape(-1, *points.shape[-2:]).contiguous()
    logs = torch.zeros(len(flat), height, width, dtype=torch.int64, device=points.device)
    transparency = flat.new_empty(logs.shape)
    screen = project(flat, faces.long(), height, width, near, blur, False)
    kernels, exponent = silhouette_kernels(points.dtype), count_log2(len(faces)) + MAX_LOG2 - 62
    arguments = (*screen, len(faces), height, width, blur, exponent, screen.threads)
    launch(kernels.cover, screen.threads, *arguments, logs)
    launch(kernels.finish, logs.numel(), logs, exponent, transparency)
    return transparency.view(*points.shape[:-2], height, width)


def backward(
    points: Tensor, faces: Tensor, transparency: Tensor, grad_output: Tensor, blur: float, near: float
) -> Tensor:
    flat, corners = points.detach().reshape(-1, *points.shape[-2:]).contiguous(), faces.long()
    height, width = transparency.shape[-2:]
    screen = project(flat, corners, height, width, near, blur, False)
    grad_output, sizes = grad_output.contiguous(), [screen.corners.numel(), flat.numel(), 1]
    kernels, bits = silhouette_kernels(points.dtype), count_log2(2 * height * width) + 1
    max_grad, zeros = (
        max_magnitude(grad_output),
        torch.zeros(sum(sizes), dtype=torch.int64, device=flat.device),
    )
    by_corner, sums, max_term = zeros.split(sizes)
    by_corner, sums = by_corner.view(screen.corners.shape), sums.view(flat.shape)
    arguments = (*screen, len(faces), height, width, blur, bits, screen.threads)
    launch(
        kernels.cover_backward,
        screen.threads,
        *arguments,
        transparency.contiguous(),
        grad_output,
        max_grad,
        by_corner,
    )
    vertex_bits, size = count_log2(3 * len(faces)), (len(flat), len(faces))
    for accumulates in (0, 1):
        launch(
            kernels.scatter,
            size,
            flat,
            corners,
            near,
            2 * LOGIT_AT_BLUR / blur,
            bits,
            by_corner,
            max_grad,
            vertex_bits,
            accumulates,
            max_term,
            sums,
        )
    return from_sums(sums, max_term, vertex_bits, points.dtype).view(points.shape)


@per_precision("silhouette", exact=True)
def silhouette_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec4 = types.scalar, types.vec4
    zero, one, half, edge_sharpness = scalar(0.0), scalar(1.0), scalar(0.5), scalar(LOGIT_AT_BLUR)
    min_log = scalar(-(2.0**MAX_LOG2))
    functions = screen_functions(types)
    polygon, triangle_at = functions.polygon, functions.triangle_at
    is_inside, nearest_edge, clip_backward = (
        functions.is_inside,
        functions.nearest_edge,
        functions.clip_backward,
    )

    @types.kernel
    def cover(
        corners: wp.array(dtype=polygon),
        areas: wp.array(dtype=scalar),
        bounds: wp.array(dtype=wp.vec4i),
        ends: wp.array(dtype=wp.int64),
        num_faces: int,
        height: int,
        width: int,
        blur: scalar,
        exponent: int,
        threads: int,
        logs: wp.array(dtype=wp.int64),
    ):
        chunk = wp.int64(wp.tid())
        sharpness = edge_sharpness / (blur * blur)
        while chunk < ends[ends.shape[0] - 1]:
            index = chunk_face(ends, chunk)
            outline, area, bound = corners[index], areas[index], bounds[index]
            first = first_pixel(ends, chunk, index)
            row, column = first // bound[2], first % bound[2]
            for _pixel in range(first, wp.min(first + CHUNK, bound[2] * bound[3])):
                x, y = scalar(bound[0] + column) + half, scalar(bound[1] + row) + half
                squared, _t, _edge = nearest_edge(outline, x, y)
                inside = is_inside(outline, area, x, y)
                if inside or squared <= blur * blur:
                    # the logarithm of sigmoid(x), x > 0 outside
                    u = squared * sharpness
                    e = wp.exp(-u)
                    term = -e
                    if one + e != one:  # log(1 + e) without loss of precision (Kahan)
                        term = -e * wp.log(one + e) / (one + e - one)
                    if inside:
                        term = wp.max(term - u, min_log)
                    pixel = (index // num_faces * height + bound[1] + row) * width + bound[0] + column
                    wp.atomic_add(logs, pixel, in_units(wp.float64(term), exponent))
                column += 1
                if column == bound[2]:
                    column = 0
                    row += 1
            chunk += wp.int64(threads)

    @types.kernel
    def finish(logs: wp.array(dtype=wp.int64), exponent: int, transparency: wp.array(dtype=scalar)):
        i = wp.tid()
        transparency[i] = wp.exp(scalar(wp.float64(logs[i]) * power_of_two(exponent)))

    @types.kernel
    def cover_backward(
        corners: wp.array(dtype=polygon),
        areas: wp.array(dtype=scalar),
        bounds: wp.array(dtype=wp.vec4i),
        ends: wp.array(dtype=wp.int64),
        num_faces: int,
        height: int,
        width: int,
        blur: scalar,
        bits: int,
        threads: int,
        transparency: wp.array(dtype=scalar),
        grad_output: wp.array(dtype=scalar),
        max_term: wp.array(dtype=wp.int64),
        by_corner: wp.array3d(dtype=wp.int64),
    ):
        """Accumulate the gradients of corners, times blur / (2 LOGIT_AT_BLUR).

        No term is larger than the upstream gradient: outside, the outline is at most `blur` away; inside, at distance
        d, the transparency is at most exp(−d² LOGIT_AT_BLUR / blur²), and d times that is less than `blur`.
        """
        chunk = wp.int64(wp.tid())
        sharpness = edge_sharpness / (blur * blur)
        exponent = unit_exponent(max_term[0], bits)
        while chunk < ends[ends.shape[0] - 1]:
            index = chunk_face(ends, chunk)
            outline, area, bound = corners[index], areas[index], bounds[index]
            first = first_pixel(ends, chunk, index)
            row, column = first // bound[2], first % bound[2]
            total = polygon(zero)
            for _pixel in range(first, wp.min(first + CHUNK, bound[2] * bound[3])):
                x, y = scalar(bound[0] + column) + half, scalar(bound[1] + row) + half
                pixel = (index // num_faces * height + bound[1] + row) * width + bound[0] + column
                weight = transparency[pixel] * grad_output[pixel] / blur
                if weight != zero:
                    squared, t, edge = nearest_edge(outline, x, y)
                    inside = is_inside(outline, area, x, y)
                    if inside or squared <= blur * blur:
                        u = squared * sharpness
                        if inside:
                            weight = -weight / (one + wp.exp(-u))
                        else:
                            e = wp.exp(-u)
                            weight = weight * e / (one + e)
                        for k in range(4):
                            j = (k + 1) % 4
                            if k == edge:
                                dx = weight * (outline[k, 0] + t * (outline[j, 0] - outline[k, 0]) - x)
                                dy = weight * (outline[k, 1] + t * (outline[j, 1] - outline[k, 1]) - y)
                                total[k, 0] += (one - t) * dx
                                total[k, 1] += (one - t) * dy
                                total[j, 0] += t * dx
                                total[j, 1] += t * dy
                column += 1
                if column == bound[2]:
                    column = 0
                    row += 1
            for k in range(4):
                for axis in range(2):
                    if total[k, axis] != zero:
                        wp.atomic_add(
                            by_corner, index, k, axis, in_units(wp.float64(total[k, axis]), exponent)
                        )
            chunk += wp.int64(threads)

    @types.kernel
    def scatter(
        points: wp.array2d(dtype=vec4),
        faces: wp.array2d(dtype=wp.int64),
        near: scalar,
        factor: wp.float64,
        corner_bits: int,
        by_corner: wp.array3d(dtype=wp.int64),
        max_grad: wp.array(dtype=wp.int64),
        bits: int,
        accumulates: int,
        max_term: wp.array(dtype=wp.int64),
        sums: wp.array3d(dtype=wp.int64),
    ):
        """Record the largest term or, in a second launch, accumulate the gradients of vertices."""
        image, face = wp.tid()
        index = image * faces.shape[0] + face
        corner_exponent = unit_exponent(max_grad[0], corner_bits)
        grad_corners = polygon(zero)
        for k in range(4):
            for axis in range(2):
                total = from_units(by_corner[index, k, axis], max_grad[0], corner_exponent)
                grad_corners[k, axis] = scalar(factor * total)
        gradient = clip_backward(triangle_at(points, faces, image, face), near, grad_corners)
        exponent = int(0)
        if accumulates == 1:
            exponent = unit_exponent(max_term[0], bits)
        for i in range(3):
            vertex = int(faces[face, i])
            for axis in range(4):
                term = wp.float64(gradient[i, axis])
                if accumulates == 1:
                    wp.atomic_add(sums, image, vertex, axis, in_units(term, exponent))
                else:
                    record_term(term, max_term)

    return SimpleNamespace(cover=cover, finish=finish, cover_backward=cover_backward, scatter=scatter)
