"""Rasterization: each thread processes a chunk of a face's pixels, and inserts the face into the lists of covered ones.

An entry is one integer, depth above face index. An atomic minimum inserts it into a pixel's sorted list and passes the
previous entry on to the next layer, so that the result does not depend on the order of threads. Gradients of vertices
are accumulated in fixed point.
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
from unrender.kernels._warp_screen import CHUNK, chunk_face, first_pixel, project, screen_functions
from unrender.kernels.rasterize.reference import MIN_AREA

FULL = 0x7FFFFFFFFFFFFFFF
EMPTY = wp.constant(wp.int64(FULL))


def forward(
    points: Tensor, faces: Tensor, height: int, width: int, layers: int, blur: float, near: float, cull: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, device = points.shape[:-2], points.device
    flat, corners = points.detach().reshape(-1, *points.shape[-2:]).contiguous(), faces.long()
    entries = torch.full((len(flat), height, width, layers), FULL, dtype=torch.int64, device=device)
    face_ids = torch.empty(entries.shape, dtype=torch.int32, device=device)
    found = [flat.new_empty(*entries.shape, *axes) for axes in ((3,), (), ())]
    screen = project(flat, corners, height, width, near, blur, cull)
    kernels, face_bits = rasterize_kernels(points.dtype), count_log2(len(faces))
    geometry = (flat, corners, *screen)
    launch(
        kernels.insert,
        screen.threads,
        *geometry,
        height,
        width,
        near,
        blur,
        face_bits,
        screen.threads,
        entries,
    )
    launch(kernels.resolve, entries.shape, *geometry[:4], face_bits, entries, face_ids, *found)
    barycentric, depth, squared = (t.reshape(*batch, *t.shape[1:]) for t in found)
    return face_ids.reshape(*batch, *face_ids.shape[1:]), barycentric, depth, squared


def backward(
    points: Tensor,
    faces: Tensor,
    face_ids: Tensor,
    barycentric: Tensor,
    grad_outputs: tuple[Tensor, Tensor, Tensor],
    near: float,
) -> Tensor:
    flat, corners = points.detach().reshape(-1, *points.shape[-2:]).contiguous(), faces.long()
    pixels = [t.detach().contiguous() for t in (face_ids, barycentric, *grad_outputs)]
    zeros = torch.zeros(flat.numel() + 1, dtype=torch.int64, device=points.device)
    sums, max_term = zeros[:-1].view(flat.shape), zeros[-1:]
    kernels, bits = rasterize_kernels(points.dtype), count_log2(face_ids.numel())
    size = (len(flat), *face_ids.shape[-3:])
    for accumulates in (0, 1):
        launch(kernels.scatter, size, flat, corners, near, *pixels, bits, accumulates, max_term, sums)
    return from_sums(sums, max_term, bits, points.dtype).view(points.shape)


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
        areas: wp.array(dtype=scalar),
        bounds: wp.array(dtype=wp.vec4i),
        ends: wp.array(dtype=wp.int64),
        height: int,
        width: int,
        near: scalar,
        blur: scalar,
        face_bits: int,
        threads: int,
        entries: wp.array2d(dtype=wp.int64),
    ):
        chunk = wp.int64(wp.tid())
        while chunk < ends[ends.shape[0] - 1]:
            index = chunk_face(ends, chunk)
            area = areas[index]
            if wp.abs(area) >= min_area:
                image = index // faces.shape[0]
                face = index - image * faces.shape[0]
                triangle, outline, bound = (
                    triangle_at(points, faces, image, face),
                    corners[index],
                    bounds[index],
                )
                first = first_pixel(ends, chunk, index)
                row, column = first // bound[2], first % bound[2]
                for _pixel in range(first, wp.min(first + CHUNK, bound[2] * bound[3])):
                    x, y = scalar(bound[0] + column) + half, scalar(bound[1] + row) + half
                    inside = is_inside(outline, area, x, y)
                    covered = inside
                    if not inside and blur > zero:
                        squared, _t, _edge = nearest_edge(outline, x, y)
                        covered = squared <= blur * blur
                    if covered:
                        depth = depth_at(triangle, unnormalized(triangle, area, x, y))
                        if depth >= near or (inside and not wp.isnan(depth)):
                            pixel = (image * height + bound[1] + row) * width + bound[0] + column
                            insert_face(entries, pixel, entry_of(wp.float64(depth), face, face_bits))
                    column += 1
                    if column == bound[2]:
                        column = 0
                        row += 1
            chunk += wp.int64(threads)

    @types.kernel
    def resolve(
        points: wp.array2d(dtype=vec4),
        faces: wp.array2d(dtype=wp.int64),
        corners: wp.array(dtype=polygon),
        areas: wp.array(dtype=scalar),
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
        triangle, outline, area = triangle_at(points, faces, image, face), corners[index], areas[index]
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
        near: scalar,
        face_ids: wp.array4d(dtype=wp.int32),
        barycentric: wp.array4d(dtype=vec3),
        grad_barycentric: wp.array4d(dtype=vec3),
        grad_depth: wp.array4d(dtype=scalar),
        grad_squared: wp.array4d(dtype=scalar),
        bits: int,
        accumulates: int,
        max_term: wp.array(dtype=wp.int64),
        sums: wp.array3d(dtype=wp.int64),
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
        outline, _count = clip(triangle, near)
        area = polygon_area(outline)
        for i in range(3):
            grad_weights[i] += depth_grad * triangle[i, 3]
        gradient = barycentric_backward(triangle, area, x, y, grad_weights)
        for i in range(3):
            gradient[i, 3] += depth_grad * barycentric[image, row, column, layer][i]
        if distance_grad != zero:
            gradient += clip_backward(triangle, near, outline_backward(outline, area, x, y, distance_grad))
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

    return SimpleNamespace(insert=insert, resolve=resolve, scatter=scatter)
