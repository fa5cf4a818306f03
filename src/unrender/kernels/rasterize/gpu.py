"""Rasterization: each thread processes a chunk of a face's pixels, and inserts the face into the lists of covered ones.

An entry is one integer, depth above face index. An atomic minimum inserts it into a pixel's sorted list and passes the
previous entry on to the next layer, so that the result does not depend on the order of threads. Long lists are filled
in any order and then sorted; those that overflow are emptied and filled by insertion. Gradients of vertices are
accumulated in fixed point.
"""

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
from unrender.kernels._warp_screen import (
    CHUNK,
    as_array,
    chunk_face,
    first_pixel,
    project,
    screen_functions,
)
from unrender.kernels.rasterize.reference import MIN_AREA

FULL = 0x7FFFFFFFFFFFFFFF
EMPTY = wp.constant(wp.int64(FULL))
SORTED_FROM = 16
"""Number of layers from which on lists are filled in any order and sorted."""
INSERT, APPEND, INSERT_OVERFLOW = range(3)


def forward(
    points: Tensor,
    faces: Tensor,
    height: int,
    width: int,
    layers: int,
    blur: float,
    near: float | Tensor,
    cull: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    vertices, corners, device, dtype = points.contiguous(), faces.long(), points.device, points.dtype
    size = (*points.shape[:-2], height, width, layers)
    entries = torch.full(size, FULL, dtype=torch.int64, device=device)
    face_ids = torch.empty(size, dtype=torch.int32, device=device)
    found = [torch.empty((*size, *more), dtype=dtype, device=device) for more in ((3,), (), ())]
    start = as_array(near, points)
    screen = project(vertices, corners, height, width, start, blur, cull)
    kernels, face_bits = rasterize_kernels(dtype), count_log2(len(faces))
    where = (vertices, corners, *screen)
    settings = (height, width, start, blur, face_bits, screen.threads)
    if layers < SORTED_FROM:
        launch(kernels.insert, screen.threads, *where, *settings, INSERT, None, entries)
    else:
        counts = torch.zeros(size[:-1], dtype=torch.int32, device=device)
        launch(kernels.insert, screen.threads, *where, *settings, APPEND, counts, entries)
        launch(kernels.sort, counts.numel(), counts, entries)
        launch(kernels.insert, screen.threads, *where, *settings, INSERT_OVERFLOW, counts, entries)
    images = (points.shape[:-2].numel(), height, width, layers)
    launch(kernels.resolve, images, *where[:3], face_bits, entries, face_ids, *found)
    return face_ids, found[0], found[1], found[2]


def backward(
    points: Tensor,
    faces: Tensor,
    face_ids: Tensor,
    barycentric: Tensor,
    grad_outputs: tuple[Tensor, Tensor, Tensor],
    near: float | Tensor,
) -> Tensor:
    pixels = [t.contiguous() for t in (face_ids, barycentric, *grad_outputs)]
    sums = torch.zeros(points.numel() + 1, dtype=torch.int64, device=points.device)
    arrays = (points.contiguous(), faces.long(), as_array(near, points), *pixels)
    kernels, bits = rasterize_kernels(points.dtype), count_log2(face_ids.numel())
    size, max_term = (points.shape[:-2].numel(), *face_ids.shape[-3:]), sums[-1:]
    for accumulates in (0, 1):
        launch(kernels.scatter, size, *arrays, bits, accumulates, max_term, sums)
    return from_sums(sums[:-1], max_term, bits, points.dtype).view(points.shape)


@wp.func
def entry_of(depth: wp.float64, face: int, face_bits: int) -> wp.int64:
    """Return an integer that sorts by depth, then face; it drops the last `face_bits` bits of a float64 depth."""
    bits = wp.cast(depth, wp.int64)
    if bits < wp.int64(0):
        bits = bits ^ EMPTY
    return ((bits >> wp.int64(face_bits)) << wp.int64(face_bits)) | wp.int64(face)


@wp.func
def insert_face(entries: wp.array2d(dtype=wp.int64), pixel: int, face: wp.int64) -> None:
    """Insert an entry into a pixel's ascending list, dropping the last."""
    layers = entries.shape[1]
    if face >= entries[pixel, layers - 1]:
        return
    entry = face
    for layer in range(layers):
        if entry < entries[pixel, layer]:  # entries only decrease: a stale value is never too small
            entry = wp.max(entry, wp.atomic_min(entries, pixel, layer, entry))
            if entry == EMPTY:
                return


@per_precision("rasterize", exact=True)
def rasterize_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec3, vec4 = types.scalar, types.vec3, types.vec4
    zero, one, half, min_area = scalar(0.0), scalar(1.0), scalar(0.5), scalar(MIN_AREA)
    functions = screen_functions(types)
    polygon, triangle_of, triangle_at = functions.polygon, functions.triangle_of, functions.triangle_at
    unnormalized, is_inside, nearest_edge = (
        functions.unnormalized,
        functions.is_inside,
        functions.nearest_edge,
    )
    clip, clip_backward, polygon_area = functions.clip, functions.clip_backward, functions.polygon_area

    @wp.func
    def depth_at(triangle: triangle_of, weights: vec3):
        """Return the depth of a face at a pixel; NaN if the area is lost to rounding."""
        w = wp.min(wp.abs(triangle[0, 2]), wp.min(wp.abs(triangle[1, 2]), wp.abs(triangle[2, 2])))
        total = weights[0] + weights[1] + weights[2]
        if total <= min_area * w * w:
            return scalar(wp.nan)
        return (
            weights[0] * triangle[0, 3] + weights[1] * triangle[1, 3] + weights[2] * triangle[2, 3]
        ) / total

    @types.kernel
    def insert(
        points: wp.array2d(dtype=vec4),
        faces: wp.array2d(dtype=wp.int64),
        corners: wp.array(dtype=polygon),
        bounds: wp.array(dtype=wp.vec4i),
        ends: wp.array(dtype=wp.int64),
        height: int,
        width: int,
        near: wp.array(dtype=scalar),
        blur: scalar,
        face_bits: int,
        threads: int,
        mode: int,
        counts: wp.array(dtype=wp.int32),
        entries: wp.array2d(dtype=wp.int64),
    ):
        """Insert faces into sorted lists, append them in any order, or insert them where appended ones overflowed."""
        chunk = wp.int64(wp.tid())
        while chunk < ends[ends.shape[0] - 1]:
            index = chunk_face(ends, chunk)
            outline = corners[index]
            area = polygon_area(outline)
            if wp.abs(area) >= min_area:
                image = index // faces.shape[0]
                face = index - image * faces.shape[0]
                triangle, bound = triangle_at(points, faces, image, face), bounds[index]
                first = first_pixel(ends, chunk, index)
                row, column = first // bound[2], first % bound[2]
                for _pixel in range(first, wp.min(first + CHUNK, bound[2] * bound[3])):
                    x, y = scalar(bound[0] + column) + half, scalar(bound[1] + row) + half
                    pixel = (image * height + bound[1] + row) * width + bound[0] + column
                    wanted = True
                    if mode == INSERT_OVERFLOW:
                        wanted = counts[pixel] > entries.shape[1]
                    inside = wanted and is_inside(outline, area, x, y)
                    covered = inside
                    if wanted and not inside and blur > zero:
                        squared, _t, _edge = nearest_edge(outline, x, y)
                        covered = squared <= blur * blur
                    if covered:
                        depth = depth_at(triangle, unnormalized(triangle, area, x, y))
                        if depth >= near[0] or (inside and not wp.isnan(depth)):
                            entry = entry_of(wp.float64(depth), face, face_bits)
                            if mode == APPEND:
                                position = wp.atomic_add(counts, pixel, 1)
                                if position < entries.shape[1]:
                                    entries[pixel, position] = entry
                            else:
                                insert_face(entries, pixel, entry)
                    column += 1
                    if column == bound[2]:
                        column = 0
                        row += 1
            chunk += wp.int64(threads)

    @types.kernel
    def sort(counts: wp.array(dtype=wp.int32), entries: wp.array2d(dtype=wp.int64)):
        """Sort a list; empty it if it should have been longer."""
        pixel = wp.tid()
        count = counts[pixel]
        if count > entries.shape[1]:
            for layer in range(entries.shape[1]):
                entries[pixel, layer] = EMPTY
        else:
            for layer in range(1, count):
                entry = entries[pixel, layer]
                before = layer - 1
                while before >= 0 and entries[pixel, before] > entry:
                    entries[pixel, before + 1] = entries[pixel, before]
                    before -= 1
                entries[pixel, before + 1] = entry

    @types.kernel
    def resolve(
        points: wp.array2d(dtype=vec4),
        faces: wp.array2d(dtype=wp.int64),
        corners: wp.array(dtype=polygon),
        face_bits: int,
        entries: wp.array4d(dtype=wp.int64),
        face_ids: wp.array4d(dtype=wp.int32),
        barycentric: wp.array4d(dtype=vec3),
        depth: wp.array4d(dtype=scalar),
        squared: wp.array4d(dtype=scalar),
    ):
        image, row, column, layer = wp.tid()
        entry = entries[image, row, column, layer]
        if entry == EMPTY:
            face_ids[image, row, column, layer] = -1
            barycentric[image, row, column, layer] = vec3(zero)
            depth[image, row, column, layer] = zero
            squared[image, row, column, layer] = zero
            return
        face = int(entry & ((wp.int64(1) << wp.int64(face_bits)) - wp.int64(1)))
        index = image * faces.shape[0] + face
        x, y = scalar(column) + half, scalar(row) + half
        triangle, outline = triangle_at(points, faces, image, face), corners[index]
        area = polygon_area(outline)
        weights = unnormalized(triangle, area, x, y)
        distance, _t, _edge = nearest_edge(outline, x, y)
        if is_inside(outline, area, x, y):
            distance = -distance
        face_ids[image, row, column, layer] = face
        barycentric[image, row, column, layer] = weights / (weights[0] + weights[1] + weights[2])
        depth[image, row, column, layer] = depth_at(triangle, weights)
        squared[image, row, column, layer] = distance

    @wp.func
    def barycentric_backward(triangle: triangle_of, area: scalar, x: scalar, y: scalar, grad: vec3):
        """Backpropagate through b = m / Σm, m = max(e, 0), and the edge functions e."""
        gradient = triangle_of(zero)
        weights = unnormalized(triangle, area, x, y)
        total = weights[0] + weights[1] + weights[2]
        mean = wp.dot(weights, grad) / total
        sign = wp.where(area > zero, one, -one)
        for i in range(3):
            if weights[i] > zero:
                grad_edge = sign * (grad[i] - mean) / total
                j, k = (i + 1) % 3, (i + 2) % 3
                jx, jy = triangle[j, 0] - x * triangle[j, 2], triangle[j, 1] - y * triangle[j, 2]
                kx, ky = triangle[k, 0] - x * triangle[k, 2], triangle[k, 1] - y * triangle[k, 2]
                gradient[j, 0] += grad_edge * ky
                gradient[j, 1] -= grad_edge * kx
                gradient[j, 2] += grad_edge * (y * kx - x * ky)
                gradient[k, 0] -= grad_edge * jy
                gradient[k, 1] += grad_edge * jx
                gradient[k, 2] += grad_edge * (x * jy - y * jx)
        return gradient

    @wp.func
    def outline_backward(outline: polygon, area: scalar, x: scalar, y: scalar, grad_output: scalar):
        """Return the gradient of the polygon's corners from that of the squared distance."""
        _squared, t, edge = nearest_edge(outline, x, y)
        scale = scalar(2.0) * grad_output
        if is_inside(outline, area, x, y):
            scale = -scale
        grad_corners = polygon(zero)
        for k in range(4):
            j = (k + 1) % 4
            if k == edge:
                dx = outline[k, 0] + t * (outline[j, 0] - outline[k, 0]) - x
                dy = outline[k, 1] + t * (outline[j, 1] - outline[k, 1]) - y
                grad_corners[k, 0] = scale * (one - t) * dx
                grad_corners[k, 1] = scale * (one - t) * dy
                grad_corners[j, 0] = scale * t * dx
                grad_corners[j, 1] = scale * t * dy
        return grad_corners

    @types.kernel
    def scatter(
        points: wp.array2d(dtype=vec4),
        faces: wp.array2d(dtype=wp.int64),
        near: wp.array(dtype=scalar),
        face_ids: wp.array4d(dtype=wp.int32),
        barycentric: wp.array4d(dtype=vec3),
        grad_barycentric: wp.array4d(dtype=vec3),
        grad_depth: wp.array4d(dtype=scalar),
        grad_squared: wp.array4d(dtype=scalar),
        bits: int,
        accumulates: int,
        max_term: wp.array(dtype=wp.int64),
        sums: wp.array(dtype=wp.int64),
    ):
        """Record the largest term or, in a second launch, accumulate the gradients of vertices."""
        image, row, column, layer = wp.tid()
        face = face_ids[image, row, column, layer]
        if face < 0:
            return
        depth_grad = grad_depth[image, row, column, layer]
        distance_grad = grad_squared[image, row, column, layer]
        grad_weights = grad_barycentric[image, row, column, layer] + vec3(zero)
        if depth_grad == zero and distance_grad == zero and wp.dot(grad_weights, grad_weights) == zero:
            return
        x, y = scalar(column) + half, scalar(row) + half
        triangle = triangle_at(points, faces, image, face)
        outline, _count = clip(triangle, near[0])
        area = polygon_area(outline)
        for i in range(3):
            grad_weights[i] += depth_grad * triangle[i, 3]
        gradient = barycentric_backward(triangle, area, x, y, grad_weights)
        for i in range(3):
            gradient[i, 3] += depth_grad * barycentric[image, row, column, layer][i]
        if distance_grad != zero:
            gradient += clip_backward(triangle, near[0], outline_backward(outline, area, x, y, distance_grad))
        exponent = int(0)
        if accumulates == 1:
            exponent = unit_exponent(max_term[0], bits)
        for i in range(3):
            vertex = int(faces[face, i])
            for axis in range(4):
                term = wp.float64(gradient[i, axis])
                if accumulates == 1:
                    index = (image * points.shape[1] + vertex) * 4 + axis
                    wp.atomic_add(sums, index, in_units(term, exponent))
                else:
                    record_term(term, max_term)

    return SimpleNamespace(insert=insert, sort=sort, resolve=resolve, scatter=scatter)
