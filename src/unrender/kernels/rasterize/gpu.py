"""Faces under each pixel: each thread takes some pixels of a face, and enters it into the lists of those it covers.

An entry is one integer, depth above face, so an atomic minimum puts it into its place, and hands on what was there to
the next one: whichever order threads come in, a pixel ends with its nearest faces, front to back. On the way back,
gradients of vertices are added up in fixed point.
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
    note_term,
    per_precision,
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
    found = [flat.new_empty(*entries.shape, *more) for more in ((3,), (), ())]
    screen = project(flat, corners, height, width, near, blur, cull)
    kernels, face_bits = rasterize_kernels(points.dtype), count_log2(len(faces))
    where = (flat, corners, *screen)
    launch(
        kernels.enter, screen.threads, *where, height, width, near, blur, face_bits, screen.threads, entries
    )
    launch(kernels.resolve, entries.shape, *where[:4], face_bits, entries, face_ids, *found)
    barycentric, depth, squared = (t.reshape(*batch, *t.shape[1:]) for t in found)
    return face_ids.reshape(*batch, *face_ids.shape[1:]), barycentric, depth, squared


def backward(
    points: Tensor,
    faces: Tensor,
    face_ids: Tensor,
    barycentric: Tensor,
    cotangents: tuple[Tensor, Tensor, Tensor],
    near: float,
) -> Tensor:
    flat, corners = points.detach().reshape(-1, *points.shape[-2:]).contiguous(), faces.long()
    pixels = [t.detach().contiguous() for t in (face_ids, barycentric, *cotangents)]
    zeros = torch.zeros(flat.numel() + 1, dtype=torch.int64, device=points.device)
    sums, greatest = zeros[:-1].view(flat.shape), zeros[-1:]
    kernels, bits = rasterize_kernels(points.dtype), count_log2(face_ids.numel())
    size = (len(flat), *face_ids.shape[-3:])
    for adds in (0, 1):
        launch(kernels.spread, size, flat, corners, near, *pixels, bits, adds, greatest, sums)
    return from_sums(sums, greatest, bits, points.dtype).view(points.shape)


@wp.func
def entry_of(depth: wp.float64, face: int, face_bits: int) -> wp.int64:
    """Return an integer that sorts by depth, then face. Of a double, it has all but the last `face_bits` bits."""
    bits = wp.cast(depth, wp.int64)
    if bits < wp.int64(0):
        bits = bits ^ EMPTY
    return ((bits >> wp.int64(face_bits)) << wp.int64(face_bits)) | wp.int64(face)


@wp.func
def enter_face(entries: wp.array2d(dtype=wp.int64), pixel: int, face: wp.int64) -> None:
    """Put an entry into a pixel's ascending list, dropping the last."""
    layers = entries.shape[1]
    if face >= entries[pixel, layers - 1]:
        return
    entry = face
    for layer in range(layers):
        if entry < entries[pixel, layer]:  # entries only fall, so this may be old, but never too small
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
    masses, is_inside, nearest_edge = functions.masses, functions.is_inside, functions.nearest_edge
    clip, clip_backward, polygon_area = functions.clip, functions.clip_backward, functions.polygon_area

    @wp.func
    def depth_at(triangle: triangle_of, weights: vec3):
        """Return the depth of a face at a pixel; NaN where rounding has left no area to speak of."""
        w = wp.min(wp.abs(triangle[0, 2]), wp.min(wp.abs(triangle[1, 2]), wp.abs(triangle[2, 2])))
        total = weights[0] + weights[1] + weights[2]
        if total <= min_area * w * w:
            return scalar(wp.nan)
        return (
            weights[0] * triangle[0, 3] + weights[1] * triangle[1, 3] + weights[2] * triangle[2, 3]
        ) / total

    @types.kernel
    def enter(
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
            place = chunk_face(ends, chunk)
            area = areas[place]
            if wp.abs(area) >= min_area:
                image = place // faces.shape[0]
                face = place - image * faces.shape[0]
                triangle, outline, bound = (
                    triangle_at(points, faces, image, face),
                    corners[place],
                    bounds[place],
                )
                first = first_pixel(ends, chunk, place)
                row, column = first // bound[2], first % bound[2]
                for _pixel in range(first, wp.min(first + CHUNK, bound[2] * bound[3])):
                    x, y = scalar(bound[0] + column) + half, scalar(bound[1] + row) + half
                    inside = is_inside(outline, area, x, y)
                    covered = inside
                    if not inside and blur > zero:
                        squared, _t, _edge = nearest_edge(outline, x, y)
                        covered = squared <= blur * blur
                    if covered:
                        depth = depth_at(triangle, masses(triangle, area, x, y))
                        if depth >= near or (inside and not wp.isnan(depth)):
                            pixel = (image * height + bound[1] + row) * width + bound[0] + column
                            enter_face(entries, pixel, entry_of(wp.float64(depth), face, face_bits))
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
        place = image * faces.shape[0] + face
        x, y = scalar(column) + half, scalar(row) + half
        triangle, outline, area = triangle_at(points, faces, image, face), corners[place], areas[place]
        weights = masses(triangle, area, x, y)
        distance, _t, _edge = nearest_edge(outline, x, y)
        if is_inside(outline, area, x, y):
            distance = -distance
        face_ids[image, row, column, layer] = face
        barycentric[image, row, column, layer] = weights / (weights[0] + weights[1] + weights[2])
        depth[image, row, column, layer] = depth_at(triangle, weights)
        squared[image, row, column, layer] = distance

    @wp.func
    def barycentric_backward(triangle: triangle_of, area: scalar, x: scalar, y: scalar, slopes: vec3):
        """Return what flows back through b = m / Σm, m = max(e, 0), and the edge functions e."""
        gradient = triangle_of(zero)
        weights = masses(triangle, area, x, y)
        total = weights[0] + weights[1] + weights[2]
        mean = wp.dot(weights, slopes) / total
        sign = wp.where(area > zero, one, -one)
        for i in range(3):
            if weights[i] > zero:
                slope = sign * (slopes[i] - mean) / total
                j, k = (i + 1) % 3, (i + 2) % 3
                jx, jy = triangle[j, 0] - x * triangle[j, 2], triangle[j, 1] - y * triangle[j, 2]
                kx, ky = triangle[k, 0] - x * triangle[k, 2], triangle[k, 1] - y * triangle[k, 2]
                gradient[j, 0] += slope * ky
                gradient[j, 1] -= slope * kx
                gradient[j, 2] += slope * (y * kx - x * ky)
                gradient[k, 0] -= slope * jy
                gradient[k, 1] += slope * jx
                gradient[k, 2] += slope * (x * jy - y * jx)
        return gradient

    @wp.func
    def outline_backward(outline: polygon, area: scalar, x: scalar, y: scalar, cotangent: scalar):
        """Return the gradient of the polygon's corners from that of the squared distance."""
        _squared, t, edge = nearest_edge(outline, x, y)
        slope = scalar(2.0) * cotangent
        if is_inside(outline, area, x, y):
            slope = -slope
        slopes = polygon(zero)
        for k in range(4):
            j = (k + 1) % 4
            if k == edge:
                dx = outline[k, 0] + t * (outline[j, 0] - outline[k, 0]) - x
                dy = outline[k, 1] + t * (outline[j, 1] - outline[k, 1]) - y
                slopes[k, 0] = slope * (one - t) * dx
                slopes[k, 1] = slope * (one - t) * dy
                slopes[j, 0] = slope * t * dx
                slopes[j, 1] = slope * t * dy
        return slopes

    @types.kernel
    def spread(
        points: wp.array2d(dtype=vec4),
        faces: wp.array2d(dtype=wp.int64),
        near: scalar,
        face_ids: wp.array4d(dtype=wp.int32),
        barycentric: wp.array4d(dtype=vec3),
        to_barycentric: wp.array4d(dtype=vec3),
        to_depth: wp.array4d(dtype=scalar),
        to_squared: wp.array4d(dtype=scalar),
        bits: int,
        adds: int,
        greatest: wp.array(dtype=wp.int64),
        sums: wp.array3d(dtype=wp.int64),
    ):
        """Note the greatest term, then add the terms of the gradient of each vertex."""
        image, row, column, layer = wp.tid()
        face = face_ids[image, row, column, layer]
        if face < 0:
            return
        depth_slope = to_depth[image, row, column, layer]
        distance_slope = to_squared[image, row, column, layer]
        slopes = to_barycentric[image, row, column, layer] + vec3(zero)
        if depth_slope == zero and distance_slope == zero and wp.dot(slopes, slopes) == zero:
            return
        x, y = scalar(column) + half, scalar(row) + half
        triangle = triangle_at(points, faces, image, face)
        outline, _count = clip(triangle, near)
        area = polygon_area(outline)
        for i in range(3):
            slopes[i] += depth_slope * triangle[i, 3]
        gradient = barycentric_backward(triangle, area, x, y, slopes)
        for i in range(3):
            gradient[i, 3] += depth_slope * barycentric[image, row, column, layer][i]
        if distance_slope != zero:
            gradient += clip_backward(triangle, near, outline_backward(outline, area, x, y, distance_slope))
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

    return SimpleNamespace(enter=enter, resolve=resolve, spread=spread)
