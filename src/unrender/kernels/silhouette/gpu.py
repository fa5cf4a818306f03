"""Soft silhouettes: each thread adds the logarithms of a face's transparency to a chunk of its pixels.

Sums of logarithms in each pixel and, in the backward pass, of the gradients of each face's corners are in fixed point,
so that they do not depend on the order of threads. Each vertex sums over its faces in their order.
"""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._incidence import incidence
from unrender.kernels._warp import (
    Precision,
    count_log2,
    from_units,
    in_units,
    launch,
    per_precision,
    power_of_two,
    size_bits,
    unit_exponent,
)
from unrender.kernels._warp_screen import (
    CHUNK,
    Screen,
    as_array,
    chunk_face,
    first_pixel,
    project,
    screen_functions,
)
from unrender.kernels.silhouette.reference import LOGIT_AT_BLUR

PIXELS_PER_THREAD = 32
"""Upstream gradients that one thread compares."""
MAX_LOG2 = 6
"""Logarithms are clamped at −2^6, where the transparency vanishes."""


def forward(
    points: Tensor, faces: Tensor, height: int, width: int, blur: float, near: float | Tensor
) -> tuple[Tensor, ...]:
    images = points.shape[:-2]
    logs = torch.zeros(*images, height, width, dtype=torch.int64, device=points.device)
    covered, transparency = (torch.empty(logs.shape, dtype=points.dtype, device=points.device) for _ in "ab")
    start = as_array(near, points)
    screen = project(points.contiguous(), faces.long(), height, width, start, blur, False)
    kernels, exponent = silhouette_kernels(points.dtype), count_log2(len(faces)) + MAX_LOG2 - 62
    arguments = (*screen, len(faces), height, width, blur, exponent, screen.threads)
    launch(kernels.cover, screen.threads, *arguments, logs)
    launch(kernels.finish, logs.numel(), logs, exponent, covered, transparency)
    return covered, transparency, *screen


def backward(
    points: Tensor,
    faces: Tensor,
    transparency: Tensor,
    screen: tuple[Tensor, ...],
    grad_output: Tensor,
    blur: float,
    near: float | Tensor,
) -> Tensor:
    vertices, corners, start = points.contiguous(), faces.long(), as_array(near, points)
    height, width = transparency.shape[-2:]
    grad_output, kernels = grad_output.contiguous(), silhouette_kernels(points.dtype)
    bits, count = count_log2(2 * height * width) + 1, points.shape[-2]
    sums = torch.zeros(screen[0].numel() + 1, dtype=torch.int64, device=points.device)
    seen = Screen(*screen)
    arguments = (*seen, len(faces), height, width, blur, bits, seen.threads, transparency.contiguous())
    launch(kernels.record_max, -(-grad_output.numel() // PIXELS_PER_THREAD), grad_output, sums)
    launch(kernels.cover_backward, seen.threads, *arguments, grad_output, sums)
    gradient, size = torch.empty_like(vertices), (points.shape[:-2].numel(), count)
    around, factor = incidence(faces, count), 2 * LOGIT_AT_BLUR / blur
    launch(kernels.gather, size, vertices, corners, *around, start, factor, bits, sums, gradient)
    return gradient


@per_precision("silhouette", exact=True)
def silhouette_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec4 = types.scalar, types.vec4
    zero, one, half, edge_sharpness = scalar(0.0), scalar(1.0), scalar(0.5), scalar(LOGIT_AT_BLUR)
    min_log = scalar(-(2.0**MAX_LOG2))
    functions = screen_functions(types)
    polygon, triangle_at = functions.polygon, functions.triangle_at
    is_inside, nearest_edge = functions.is_inside, functions.nearest_edge
    polygon_area, clip_backward = functions.polygon_area, functions.clip_backward

    @types.kernel
    def cover(
        corners: wp.array(dtype=polygon),
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
            outline, bound = corners[index], bounds[index]
            area = polygon_area(outline)
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
    def finish(
        logs: wp.array(dtype=wp.int64),
        exponent: int,
        covered: wp.array(dtype=scalar),
        transparency: wp.array(dtype=scalar),
    ):
        i = wp.tid()
        left = wp.exp(scalar(wp.float64(logs[i]) * power_of_two(exponent)))
        covered[i] = one - left
        transparency[i] = left

    @types.kernel
    def record_max(grad_output: wp.array(dtype=scalar), sums: wp.array(dtype=wp.int64)):
        """Record the largest upstream gradient in the last of the sums."""
        first, last = wp.tid() * PIXELS_PER_THREAD, sums.shape[0] - 1
        bits = wp.int64(0)
        for i in range(first, wp.min(first + PIXELS_PER_THREAD, grad_output.shape[0])):
            bits = wp.max(bits, size_bits(wp.float64(grad_output[i])))
        if bits > sums[last]:
            wp.atomic_max(sums, last, bits)

    @types.kernel
    def cover_backward(
        corners: wp.array(dtype=polygon),
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
        sums: wp.array(dtype=wp.int64),
    ):
        """Accumulate the gradients of corners, times blur / (2 LOGIT_AT_BLUR).

        No term is larger than the upstream gradient: outside, the outline is at most `blur` away; inside, at distance
        d, the transparency is at most exp(−d² LOGIT_AT_BLUR / blur²), and d times that is less than `blur`.
        """
        chunk = wp.int64(wp.tid())
        sharpness = edge_sharpness / (blur * blur)
        exponent = unit_exponent(sums[sums.shape[0] - 1], bits)
        while chunk < ends[ends.shape[0] - 1]:
            index = chunk_face(ends, chunk)
            outline, bound = corners[index], bounds[index]
            area = polygon_area(outline)
            first = first_pixel(ends, chunk, index)
            row, column = first // bound[2], first % bound[2]
            total = polygon(zero)
            for _pixel in range(first, wp.min(first + CHUNK, bound[2] * bound[3])):
                x, y = scalar(bound[0] + column) + half, scalar(bound[1] + row) + half
                pixel = (index // num_faces * height + bound[1] + row) * width + bound[0] + column
                weight = -transparency[pixel] * grad_output[pixel] / blur
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
                        term = in_units(wp.float64(total[k, axis]), exponent)
                        wp.atomic_add(sums, (index * 4 + k) * 2 + axis, term)
            chunk += wp.int64(threads)

    @types.kernel
    def gather(
        points: wp.array2d(dtype=vec4),
        faces: wp.array2d(dtype=wp.int64),
        starts: wp.array(dtype=wp.int64),
        places: wp.array(dtype=wp.int64),
        near: wp.array(dtype=scalar),
        factor: wp.float64,
        bits: int,
        sums: wp.array(dtype=wp.int64),
        gradient: wp.array2d(dtype=vec4),
    ):
        """Sum the gradient of each vertex over its faces, in their order."""
        image, i = wp.tid()
        max_term = sums[sums.shape[0] - 1]
        exponent = unit_exponent(max_term, bits)
        total = vec4(zero)
        for n in range(int(starts[i]), int(starts[i + 1])):
            face, corner = int(places[n]) // 3, int(places[n]) % 3
            grad_corners = polygon(zero)
            first = (image * faces.shape[0] + face) * 8
            for k in range(4):
                for axis in range(2):
                    units = sums[first + k * 2 + axis]
                    grad_corners[k, axis] = scalar(factor * from_units(units, max_term, exponent))
            total += clip_backward(triangle_at(points, faces, image, face), near[0], grad_corners)[corner]
        gradient[image, i] = total

    return SimpleNamespace(
        cover=cover, finish=finish, record_max=record_max, cover_backward=cover_backward, gather=gather
    )
