"""Tiled rasterization, parallel over tiles; the backward pass is parallel over faces."""

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._dispatch import cpu_threads
from unrender.kernels._screen import TILE, clip_backward, project, project_face, scatter_to_vertices
from unrender.kernels.rasterize.reference import MIN_AREA


def forward(
    points: Tensor,
    faces: Tensor,
    height: int,
    width: int,
    layers: int,
    blur: float,
    near: float,
    cull: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch = points.shape[:-2]
    flat = points.detach().reshape(-1, *points.shape[-2:]).contiguous()
    slots = (len(flat), height, width, layers)
    found = (
        torch.empty(slots, dtype=torch.int32, device="cpu"),
        flat.new_empty(*slots, 3),
        flat.new_empty(slots),
        flat.new_empty(slots),
    )
    with cpu_threads(height * width):
        for one, *outputs in zip(flat.numpy(), *(t.numpy() for t in found), strict=True):
            scalar = one.dtype.type
            screen, bins = project(one, faces.numpy(), height, width, near, blur, cull)
            _search(*screen, *bins, scalar(near), scalar(blur), *outputs)
    face_ids, barycentric, depth, squared = (t.reshape(*batch, *t.shape[1:]) for t in found)
    return face_ids, barycentric, depth, squared


def backward(
    points: Tensor,
    faces: Tensor,
    face_ids: Tensor,
    barycentric: Tensor,
    grad_outputs: tuple[Tensor, Tensor, Tensor],
    near: float,
) -> Tensor:
    gradient = torch.zeros_like(points, memory_format=torch.contiguous_format)
    batch_axes = points.dim() - 2
    flat = [
        t.detach().contiguous().reshape(-1, *t.shape[batch_axes:]).numpy()
        for t in (points, gradient, face_ids, barycentric, *grad_outputs)
    ]
    with cpu_threads(face_ids.numel()):
        for one, one_gradient, ids, *pixels in zip(*flat, strict=True):
            starts, slots = order_by_face(ids.reshape(-1), len(faces))
            by_face = np.zeros((len(faces), 3, 4), one.dtype)
            _gather(one, faces.numpy(), one.dtype.type(near), starts, slots, *pixels, by_face)
            scatter_to_vertices(by_face, faces.numpy(), one_gradient)
    return gradient


@numba.njit(cache=True)
def order_by_face(face_ids, num_faces):
    """List the filled slots of every face: `slots[starts[f]:starts[f + 1]]`, ascending."""
    starts = np.zeros(num_faces + 1, np.int64)
    for face in face_ids:
        if face >= 0:
            starts[face + 1] += 1
    starts = np.cumsum(starts)
    slots, positions = np.empty(starts[-1], np.int64), starts[:-1].copy()
    for slot in range(len(face_ids)):
        face = face_ids[slot]
        if face >= 0:
            slots[positions[face]] = slot
            positions[face] += 1
    return starts, slots


@numba.njit(cache=True, inline="always", error_model="numpy")
def edge_distance(x, y, ax, ay, bx, by):
    """Return the squared distance from (x, y) to an edge, and the parameter of the closest point (0 at a, 1 at b)."""
    ex, ey = bx - ax, by - ay
    length = ex * ex + ey * ey
    along = (x - ax) * ex + (y - ay) * ey
    t = min(max(along / length, ax * 0), ax * 0 + 1) if length > 0 else ax * 0
    dx, dy = x - ax - t * ex, y - ay - t * ey
    return dx * dx + dy * dy, t


@numba.njit(cache=True, inline="always", error_model="numpy")
def _nearest_edge(corners, count, x, y):
    best, best_t, edge = corners.dtype.type(np.inf), corners.dtype.type(0), 0
    for k in range(count):
        j = k + 1 if k + 1 < count else 0
        squared, t = edge_distance(x, y, corners[k, 0], corners[k, 1], corners[j, 0], corners[j, 1])
        if squared < best:
            best, best_t, edge = squared, t, k
    return best, best_t, edge


@numba.njit(cache=True, inline="always", error_model="numpy")
def _is_inside(corners, count, area, x, y):
    """Evaluate the edge functions; those of a shared edge are exact opposites, so that no pixel is missed."""
    for k in range(count):
        j = k + 1 if k + 1 < count else 0
        side = (corners[k, 0] - x) * (corners[j, 1] - y) - (corners[j, 0] - x) * (corners[k, 1] - y)
        if (side < 0) if area > 0 else (side > 0):
            return False
    return True


@numba.njit(cache=True, inline="always", error_model="numpy")
def _unnormalized(triangle, area, x, y):
    """Return unnormalized barycentrics: homogeneous edge functions, clamped at zero."""
    ax, ay = triangle[0, 0] - x * triangle[0, 2], triangle[0, 1] - y * triangle[0, 2]
    bx, by = triangle[1, 0] - x * triangle[1, 2], triangle[1, 1] - y * triangle[1, 2]
    cx, cy = triangle[2, 0] - x * triangle[2, 2], triangle[2, 1] - y * triangle[2, 2]
    a, b, c = bx * cy - cx * by, cx * ay - ax * cy, ax * by - bx * ay
    if area < 0:
        a, b, c = -a, -b, -c
    zero = triangle.dtype.type(0)
    return max(a, zero), max(b, zero), max(c, zero)


@numba.njit(cache=True, inline="always", error_model="numpy")
def _depth(triangle, area, x, y):
    """Return the depth of a face at a pixel; NaN if the area is lost to rounding."""
    a, b, c = _unnormalized(triangle, area, x, y)
    w = min(abs(triangle[0, 2]), abs(triangle[1, 2]), abs(triangle[2, 2]))
    if a + b + c <= triangle.dtype.type(MIN_AREA) * w * w:
        return triangle.dtype.type(np.nan)
    return (a * triangle[0, 3] + b * triangle[1, 3] + c * triangle[2, 3]) / (a + b + c)


@numba.njit(cache=True, inline="always")
def _insert(depths, ids, depth, face):
    """Insert a face into the pixel's list, ascending in depth, ties by the smaller id, dropping the last."""
    k = len(depths) - 1
    if depth >= depths[k]:
        return
    while k > 0 and depths[k - 1] > depth:
        depths[k] = depths[k - 1]
        ids[k] = ids[k - 1]
        k -= 1
    depths[k] = depth
    ids[k] = face


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _search(
    triangles, corners, counts, areas, bounds, starts, bins, near, blur, face_ids, barycentric, depth, squared
):
    height, width, layers = face_ids.shape
    columns = (width + TILE - 1) // TILE
    half = corners.dtype.type(0.5)
    for tile in numba.prange(len(starts) - 1):
        top, left = tile // columns * TILE, tile % columns * TILE
        depths = np.full((TILE, TILE, layers), np.inf, corners.dtype)
        ids = np.full((TILE, TILE, layers), -1, np.int32)
        for entry in range(starts[tile], starts[tile + 1]):
            face = bins[entry]
            area, count = areas[face], counts[face]
            if abs(area) < MIN_AREA:
                continue
            min_depth = min(triangles[face, 0, 3], triangles[face, 1, 3], triangles[face, 2, 3])
            for row in range(max(top, bounds[face, 2]), min(top + TILE, bounds[face, 3] + 1)):
                for column in range(max(left, bounds[face, 0]), min(left + TILE, bounds[face, 1] + 1)):
                    if min_depth > depths[row - top, column - left, layers - 1]:
                        continue
                    x, y = corners.dtype.type(column) + half, corners.dtype.type(row) + half
                    inside = _is_inside(corners[face], count, area, x, y)
                    if not inside and (
                        blur == 0 or _nearest_edge(corners[face], count, x, y)[0] > blur * blur
                    ):
                        continue
                    z = _depth(triangles[face], area, x, y)
                    if z >= near or (inside and not np.isnan(z)):
                        _insert(depths[row - top, column - left], ids[row - top, column - left], z, face)
        for row in range(top, min(top + TILE, height)):
            for column in range(left, min(left + TILE, width)):
                x, y = corners.dtype.type(column) + half, corners.dtype.type(row) + half
                for k in range(layers):
                    face = ids[row - top, column - left, k]
                    face_ids[row, column, k] = face
                    if face < 0:
                        barycentric[row, column, k] = 0
                        depth[row, column, k] = 0
                        squared[row, column, k] = 0
                        continue
                    a, b, c = _unnormalized(triangles[face], areas[face], x, y)
                    total = a + b + c
                    barycentric[row, column, k, 0] = a / total
                    barycentric[row, column, k, 1] = b / total
                    barycentric[row, column, k, 2] = c / total
                    depth[row, column, k] = depths[row - top, column - left, k]
                    distance = _nearest_edge(corners[face], counts[face], x, y)[0]
                    inside = _is_inside(corners[face], counts[face], areas[face], x, y)
                    squared[row, column, k] = -distance if inside else distance


@numba.njit(cache=True, inline="always", error_model="numpy")
def _barycentric_backward(triangle, area, x, y, grad, gradient):
    """Backpropagate through b = m / Σm, m = max(e, 0), and the edge functions e; add to `gradient` [3, 4]."""
    unnormalized = _unnormalized(triangle, area, x, y)
    total = unnormalized[0] + unnormalized[1] + unnormalized[2]
    mean = (unnormalized[0] * grad[0] + unnormalized[1] * grad[1] + unnormalized[2] * grad[2]) / total
    sign = triangle.dtype.type(1 if area > 0 else -1)
    for i in range(3):
        if unnormalized[i] > 0:
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


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _gather(
    points, faces, near, starts, slots, barycentric, grad_barycentric, grad_depth, grad_squared, by_face
):
    """Gather the gradients of each face from the slots where it is visible."""
    width, layers = grad_depth.shape[1:]
    half = points.dtype.type(0.5)
    for face in numba.prange(len(faces)):
        if starts[face] == starts[face + 1]:
            continue
        triangle, polygon = np.empty((3, 4), points.dtype), np.empty((4, 2), points.dtype)
        count, area = project_face(points, faces[face], near, triangle, polygon)
        gradient_corners = np.zeros((4, 2), points.dtype)
        grad_weights = np.empty(3, points.dtype)
        for position in range(starts[face], starts[face + 1]):
            slot = slots[position]
            row, column, k = slot // (width * layers), slot // layers % width, slot % layers
            x, y = points.dtype.type(column) + half, points.dtype.type(row) + half
            for i in range(3):
                grad_weights[i] = (
                    grad_barycentric[row, column, k, i] + grad_depth[row, column, k] * triangle[i, 3]
                )
                by_face[face, i, 3] += grad_depth[row, column, k] * barycentric[row, column, k, i]
            _barycentric_backward(triangle, area, x, y, grad_weights, by_face[face])
            scale = 2 * grad_squared[row, column, k]
            if scale != 0:
                _, t, edge = _nearest_edge(polygon, count, x, y)
                after = edge + 1 if edge + 1 < count else 0
                if _is_inside(polygon, count, area, x, y):
                    scale = -scale
                dx = polygon[edge, 0] + t * (polygon[after, 0] - polygon[edge, 0]) - x
                dy = polygon[edge, 1] + t * (polygon[after, 1] - polygon[edge, 1]) - y
                gradient_corners[edge, 0] += scale * (1 - t) * dx
                gradient_corners[edge, 1] += scale * (1 - t) * dy
                gradient_corners[after, 0] += scale * t * dx
                gradient_corners[after, 1] += scale * t * dy
        clip_backward(triangle, near, gradient_corners, by_face[face])
