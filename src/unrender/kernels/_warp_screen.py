"""Faces in screen space, for the GPU: clipped at the near plane, projected, with their pixels split into chunks.

As in `_screen`, points are homogeneous pixel coordinates (x·w, y·w, w, depth), and a face clipped at the near
plane is a polygon of 3 or 4 corners; here a polygon of 3 repeats its first. The pixels of a face are those of its
bounding rectangle, split into chunks, so that a face that fills the image is processed by many threads.
"""

import functools
from types import SimpleNamespace
from typing import NamedTuple

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision

CHUNK = 8
"""Pixels per chunk."""
LONG_CHUNK = wp.constant(
    wp.int64(CHUNK)
)  # Warp confuses the types of a constant used with two types in one kernel
THREADS = {"cuda": 1 << 18, "cpu": 48}
"""Threads that process the chunks, whose number is known on the device only."""


class Screen(NamedTuple):
    """Projected faces of all images of a batch."""

    corners: Tensor
    """Clipped polygons, in pixels [faces, 4, 2]."""
    bounds: Tensor
    """First column and row of the pixels within reach, and the number of columns and rows [faces, 4]."""
    ends: Tensor
    """Cumulative number of chunks of the faces."""

    @property
    def threads(self) -> int:
        """Number of threads to launch."""
        return THREADS[self.ends.device.type] if len(self.ends) > 0 else 0


def project(
    points: Tensor, faces: Tensor, height: int, width: int, near: Tensor, reach: float, cull: bool
) -> Screen:
    """Clip and project faces of points [*batch, vertices, 4]; `cull` drops back faces."""
    size, device = (points.shape[:-2].numel(), len(faces)), points.device
    count = size[0] * size[1]
    corners = torch.empty(count, 4, 2, dtype=points.dtype, device=device)
    bounds = torch.empty(count, 4, dtype=torch.int32, device=device)
    chunks = torch.empty(count, dtype=torch.int64, device=device)
    arguments = (points, faces, height, width, near, reach, int(cull), corners, bounds, chunks)
    launch(screen_kernels(points.dtype).project, size, *arguments)
    return Screen(corners, bounds, chunks.cumsum(0))


def as_array(near: float | Tensor, points: Tensor) -> Tensor:
    """Return the depth of the near plane as an array: on a GPU, it may not be known to the host."""
    return near if isinstance(near, Tensor) else _constant(float(near), points.dtype, points.device)


@functools.lru_cache(256)
def _constant(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.full((), value, dtype=dtype, device=device)


@wp.func
def chunk_face(ends: wp.array(dtype=wp.int64), chunk: wp.int64):
    """Return the face that a chunk belongs to: the first that ends after it."""
    low, high = int(0), ends.shape[0] - 1
    while low < high:
        midpoint = (low + high) // 2
        if ends[midpoint] > chunk:
            high = midpoint
        else:
            low = midpoint + 1
    return low


@wp.func
def first_pixel(ends: wp.array(dtype=wp.int64), chunk: wp.int64, face: int):
    """Return the first pixel, of its face's rectangle, in a chunk."""
    before = wp.int64(0)
    if face > 0:
        before = ends[face - 1]
    return int(chunk - before) * CHUNK


def screen_functions(types: Precision) -> SimpleNamespace:
    """Make the functions of faces and pixels that several kernels use."""
    scalar, vec2, vec3, vec4 = types.scalar, types.vec2, types.vec3, types.vec4
    polygon, triangle_of = wp.types.matrix((4, 2), scalar), wp.types.matrix((3, 4), scalar)
    zero, one, two = scalar(0.0), scalar(1.0), scalar(2.0)

    @wp.func
    def triangle_at(points: wp.array2d(dtype=vec4), faces: wp.array2d(dtype=wp.int64), b: int, face: int):
        return wp.matrix_from_rows(
            points[b, int(faces[face, 0])], points[b, int(faces[face, 1])], points[b, int(faces[face, 2])]
        )

    @wp.func
    def clip(triangle: triangle_of, near: scalar):
        """Return the part of a triangle in front of the near plane, in pixels, and its corner count.

        Intersections are computed from the vertex in front, so that faces which share an edge share them to the bit.
        """
        corners = polygon(zero)
        count = int(0)
        for i in range(3):
            j = (i + 1) % 3
            i_front, j_front = triangle[i, 3] >= near, triangle[j, 3] >= near
            if i_front:
                x, y = triangle[i, 0] / triangle[i, 2], triangle[i, 1] / triangle[i, 2]
                for k in range(4):  # an index known at compile time stays in a register
                    if k == count:
                        corners[k, 0] = x
                        corners[k, 1] = y
                count += 1
            if i_front != j_front:
                a, b = triangle[i], triangle[j]
                if j_front:
                    a, b = triangle[j], triangle[i]
                t = (near - a[3]) / (b[3] - a[3])
                w = a[2] + t * (b[2] - a[2])
                x, y = (a[0] + t * (b[0] - a[0])) / w, (a[1] + t * (b[1] - a[1])) / w
                for k in range(4):
                    if k == count:
                        corners[k, 0] = x
                        corners[k, 1] = y
                count += 1
        if count == 3:
            corners[3, 0] = corners[0, 0]
            corners[3, 1] = corners[0, 1]
        return corners, count

    @wp.func
    def clip_backward(triangle: triangle_of, near: scalar, by_corner: polygon):
        """Return a triangle's gradient from that of its polygon."""
        grad_corners = by_corner + polygon(zero)
        gradient = triangle_of(zero)
        num_front, count = int(0), int(0)
        for i in range(3):
            if triangle[i, 3] >= near:
                num_front += 1
        if num_front != 2:  # the fourth corner repeats the first
            grad_corners[0, 0] += grad_corners[3, 0]
            grad_corners[0, 1] += grad_corners[3, 1]
        for i in range(3):
            j = (i + 1) % 3
            i_front, j_front = triangle[i, 3] >= near, triangle[j, 3] >= near
            if i_front:
                gu, gv, w = grad_corners[count, 0], grad_corners[count, 1], triangle[i, 2]
                gradient[i, 0] += gu / w
                gradient[i, 1] += gv / w
                gradient[i, 2] -= (gu * triangle[i, 0] + gv * triangle[i, 1]) / (w * w)
                count += 1
            if i_front != j_front:
                a, b = i, j
                if j_front:
                    a, b = j, i
                span = triangle[b, 3] - triangle[a, 3]
                t = (near - triangle[a, 3]) / span
                x = triangle[a, 0] + t * (triangle[b, 0] - triangle[a, 0])
                y = triangle[a, 1] + t * (triangle[b, 1] - triangle[a, 1])
                w = triangle[a, 2] + t * (triangle[b, 2] - triangle[a, 2])
                gx, gy = grad_corners[count, 0] / w, grad_corners[count, 1] / w
                gw = -(gx * x + gy * y) / w
                gt = gx * (triangle[b, 0] - triangle[a, 0]) + gy * (triangle[b, 1] - triangle[a, 1])
                gt += gw * (triangle[b, 2] - triangle[a, 2])
                ga = vec4((one - t) * gx, (one - t) * gy, (one - t) * gw, -gt * (one - t) / span)
                gb = vec4(t * gx, t * gy, t * gw, -gt * t / span)
                for axis in range(4):
                    gradient[a, axis] += ga[axis]
                    gradient[b, axis] += gb[axis]
                count += 1
        return gradient

    @wp.func
    def polygon_area(corners: polygon):
        ax, ay = corners[1, 0] - corners[0, 0], corners[1, 1] - corners[0, 1]
        bx, by = corners[2, 0] - corners[0, 0], corners[2, 1] - corners[0, 1]
        cx, cy = corners[3, 0] - corners[0, 0], corners[3, 1] - corners[0, 1]
        return ((ax * by - bx * ay) + (bx * cy - cx * by)) / two

    @wp.func
    def nearest_edge(corners: polygon, x: scalar, y: scalar):
        """Return the squared distance to the outline, the nearest edge's parameter (0 at its start), and that edge."""
        best, best_t = scalar(wp.inf), scalar(0.0)
        edge = int(0)
        for k in range(4):
            j = (k + 1) % 4
            ex, ey = corners[j, 0] - corners[k, 0], corners[j, 1] - corners[k, 1]
            dx, dy = x - corners[k, 0], y - corners[k, 1]
            length = ex * ex + ey * ey
            t = scalar(0.0)
            if length > zero:
                t = wp.clamp((dx * ex + dy * ey) / length, zero, one)
            dx, dy = dx - t * ex, dy - t * ey
            squared = dx * dx + dy * dy
            if squared < best:
                best = squared
                best_t = t
                edge = k
        return best, best_t, edge

    @wp.func
    def is_inside(corners: polygon, area: scalar, x: scalar, y: scalar):
        """Evaluate the edge functions; those of a shared edge are exact opposites, so that no pixel is missed."""
        inside = area != zero
        for k in range(4):
            j = (k + 1) % 4
            side = (corners[k, 0] - x) * (corners[j, 1] - y) - (corners[j, 0] - x) * (corners[k, 1] - y)
            if (area > zero and side < zero) or (area < zero and side > zero):
                inside = False
        return inside

    @wp.func
    def unnormalized(triangle: triangle_of, area: scalar, x: scalar, y: scalar):
        """Return unnormalized barycentrics: homogeneous edge functions, clamped at zero."""
        a = vec2(triangle[0, 0] - x * triangle[0, 2], triangle[0, 1] - y * triangle[0, 2])
        b = vec2(triangle[1, 0] - x * triangle[1, 2], triangle[1, 1] - y * triangle[1, 2])
        c = vec2(triangle[2, 0] - x * triangle[2, 2], triangle[2, 1] - y * triangle[2, 2])
        sides = vec3(b[0] * c[1] - c[0] * b[1], c[0] * a[1] - a[0] * c[1], a[0] * b[1] - b[0] * a[1])
        if area < zero:
            sides = -sides
        return wp.max(sides, vec3(zero))

    return SimpleNamespace(
        triangle_at=triangle_at,
        clip=clip,
        clip_backward=clip_backward,
        polygon_area=polygon_area,
        nearest_edge=nearest_edge,
        is_inside=is_inside,
        unnormalized=unnormalized,
        polygon=polygon,
        triangle_of=triangle_of,
    )


@per_precision("screen", exact=True)
def screen_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernel that projects faces."""
    scalar, vec4 = types.scalar, types.vec4
    functions = screen_functions(types)
    triangle_at, clip, polygon_area, polygon = (
        functions.triangle_at,
        functions.clip,
        functions.polygon_area,
        functions.polygon,
    )
    half = scalar(0.5)

    @types.kernel
    def project(
        points: wp.array2d(dtype=vec4),
        faces: wp.array2d(dtype=wp.int64),
        height: int,
        width: int,
        near: wp.array(dtype=scalar),
        reach: scalar,
        cull: int,
        corners: wp.array(dtype=polygon),
        bounds: wp.array(dtype=wp.vec4i),
        chunks: wp.array(dtype=wp.int64),
    ):
        b, face = wp.tid()
        outline, count = clip(triangle_at(points, faces, b, face), near[0])
        area = polygon_area(outline)
        low_x, high_x = outline[0, 0], outline[0, 0]
        low_y, high_y = outline[0, 1], outline[0, 1]
        for k in range(1, 4):
            low_x, high_x = wp.min(low_x, outline[k, 0]), wp.max(high_x, outline[k, 0])
            low_y, high_y = wp.min(low_y, outline[k, 1]), wp.max(high_y, outline[k, 1])
        right, bottom = scalar(width), scalar(height)
        first_x = int(wp.ceil(wp.clamp(low_x - reach - half, scalar(0.0), right)))
        last_x = int(wp.floor(wp.clamp(high_x + reach - half, scalar(-1.0), right - scalar(1.0))))
        first_y = int(wp.ceil(wp.clamp(low_y - reach - half, scalar(0.0), bottom)))
        last_y = int(wp.floor(wp.clamp(high_y + reach - half, scalar(-1.0), bottom - scalar(1.0))))
        num_x, num_y = wp.max(last_x - first_x + 1, 0), wp.max(last_y - first_y + 1, 0)
        if count < 3 or wp.isnan(area) or (cull != 0 and area >= scalar(0.0)):
            num_x = 0
        index = b * faces.shape[0] + face
        corners[index] = outline
        bounds[index] = wp.vec4i(first_x, first_y, num_x, num_y)
        chunks[index] = (wp.int64(num_x) * wp.int64(num_y) + LONG_CHUNK - wp.int64(1)) // LONG_CHUNK

    return SimpleNamespace(project=project)
