"""Soft coverage: each thread takes some pixels of a face, and adds the logarithm of what it leaves open to each.

All sums are in fixed point: of logarithms in each pixel, then, on the way back, of the gradients of each face's corners
and of each vertex.
"""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._fixed_point import from_sums, greatest_of
from unrender.kernels._warp import (
    Precision,
    count_log2,
    from_units,
    in_units,
    launch,
    note_term,
    per_precision,
    power_of_two,
    unit_exponent,
)
from unrender.kernels._warp_screen import CHUNK, chunk_face, first_pixel, project, screen_functions
from unrender.kernels.silhouette.reference import LOGIT_AT_BLUR

MAX_LOG2 = 6
"""Logarithms end at −2^6: what a face leaves open there is nothing."""


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
    points: Tensor, faces: Tensor, transparency: Tensor, cotangent: Tensor, blur: float, near: float
) -> Tensor:
    flat, corners = points.detach().reshape(-1, *points.shape[-2:]).contiguous(), faces.long()
    height, width = transparency.shape[-2:]
    screen = project(flat, corners, height, width, near, blur, False)
    slopes, sizes = cotangent.contiguous(), [screen.corners.numel(), flat.numel(), 1]
    kernels, bits = silhouette_kernels(points.dtype), count_log2(2 * height * width) + 1
    greatest_slope, zeros = (
        greatest_of(slopes),
        torch.zeros(sum(sizes), dtype=torch.int64, device=flat.device),
    )
    by_corner, sums, greatest = zeros.split(sizes)
    by_corner, sums = by_corner.view(screen.corners.shape), sums.view(flat.shape)
    arguments = (*screen, len(faces), height, width, blur, bits, screen.threads)
    launch(
        kernels.cover_backward,
        screen.threads,
        *arguments,
        transparency.contiguous(),
        slopes,
        greatest_slope,
        by_corner,
    )
    vertex_bits, size = count_log2(3 * len(faces)), (len(flat), len(faces))
    for adds in (0, 1):
        launch(
            kernels.spread,
            size,
            flat,
            corners,
            near,
            2 * LOGIT_AT_BLUR / blur,
            bits,
            by_corner,
            greatest_slope,
            vertex_bits,
            adds,
            greatest,
            sums,
        )
    return from_sums(sums, greatest, vertex_bits, points.dtype).view(points.shape)


@per_precision("silhouette", exact=True)
def silhouette_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec4 = types.scalar, types.vec4
    zero, one, half, edge_sharpness = scalar(0.0), scalar(1.0), scalar(0.5), scalar(LOGIT_AT_BLUR)
    least = scalar(-(2.0**MAX_LOG2))
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
            place = chunk_face(ends, chunk)
            outline, area, bound = corners[place], areas[place], bounds[place]
            first = first_pixel(ends, chunk, place)
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
                    if one + e != one:  # log(1 + e) to the last digit: Kahan's
                        term = -e * wp.log(one + e) / (one + e - one)
                    if inside:
                        term = wp.max(term - u, least)
                    pixel = (place // num_faces * height + bound[1] + row) * width + bound[0] + column
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
        slopes: wp.array(dtype=scalar),
        greatest: wp.array(dtype=wp.int64),
        by_corner: wp.array3d(dtype=wp.int64),
    ):
        """Add up blur / (2 LOGIT_AT_BLUR) of the gradients of corners.

        None is larger than the slope: outside, the outline is at most `blur` away; inside, at distance d, the pixel is
        open by at most exp(−d² LOGIT_AT_BLUR / blur²), and d times that is less than `blur`.
        """
        chunk = wp.int64(wp.tid())
        sharpness = edge_sharpness / (blur * blur)
        exponent = unit_exponent(greatest[0], bits)
        while chunk < ends[ends.shape[0] - 1]:
            place = chunk_face(ends, chunk)
            outline, area, bound = corners[place], areas[place], bounds[place]
            first = first_pixel(ends, chunk, place)
            row, column = first // bound[2], first % bound[2]
            total = polygon(zero)
            for _pixel in range(first, wp.min(first + CHUNK, bound[2] * bound[3])):
                x, y = scalar(bound[0] + column) + half, scalar(bound[1] + row) + half
                pixel = (place // num_faces * height + bound[1] + row) * width + bound[0] + column
                weight = transparency[pixel] * slopes[pixel] / blur
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
                            by_corner, place, k, axis, in_units(wp.float64(total[k, axis]), exponent)
                        )
            chunk += wp.int64(threads)

    @types.kernel
    def spread(
        points: wp.array2d(dtype=vec4),
        faces: wp.array2d(dtype=wp.int64),
        near: scalar,
        factor: wp.float64,
        corner_bits: int,
        by_corner: wp.array3d(dtype=wp.int64),
        greatest_slope: wp.array(dtype=wp.int64),
        bits: int,
        adds: int,
        greatest: wp.array(dtype=wp.int64),
        sums: wp.array3d(dtype=wp.int64),
    ):
        """Note the greatest term, then add the terms of the gradient of each vertex."""
        image, face = wp.tid()
        place = image * faces.shape[0] + face
        corner_exponent = unit_exponent(greatest_slope[0], corner_bits)
        slopes = polygon(zero)
        for k in range(4):
            for axis in range(2):
                total = from_units(by_corner[place, k, axis], greatest_slope[0], corner_exponent)
                slopes[k, axis] = scalar(factor * total)
        gradient = clip_backward(triangle_at(points, faces, image, face), near, slopes)
        exponent = int(0)
        if adds == 1:
            exponent = unit_exponent(greatest[0], bits)
        for i in range(3):
            vertex = int(faces[face, i])
            for axis in range(4):
                term = wp.float64(gradient[i, axis])
                if adds == 1:
                    wp.atomic_add(sums, image, vertex, axis, in_units(term, exponent))
                else:
                    note_term(term, greatest)

    return SimpleNamespace(cover=cover, finish=finish, cover_backward=cover_backward, spread=spread)
