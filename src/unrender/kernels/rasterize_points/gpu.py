"""Point rasterization on a GPU: one thread per pixel and the points of its tile; backward, one thread per point."""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision

TILE = 16
"""Pixels along the side of a tile."""
MARGIN = wp.constant(0.01)
"""In pixels, more than the rounding of coordinates."""


def forward(
    points: Tensor, radii: Tensor, height: int, width: int, layers: int
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (*points.shape[:-2], height, width, layers)
    point_ids = torch.empty(shape, dtype=torch.int32, device=points.device)
    depth, squared = points.new_empty(shape), points.new_empty(shape)
    flat, flat_radii = points.detach().contiguous().view(-1, 3), radii.detach().contiguous().view(-1)
    images = points.shape[:-2].numel()
    starts, order = _tiles(flat, flat_radii, images, height, width)
    sizes = (height, width, layers, max(points.shape[-2], 1))
    outputs = [t.view(-1) for t in (point_ids, depth, squared)]
    kernels = point_kernels(points.dtype)
    launch(kernels.search, images * height * width, flat, flat_radii, starts, order, *sizes, *outputs)
    return point_ids, depth, squared


def backward(points: Tensor, radii: Tensor, point_ids: Tensor, grad_outputs: tuple[Tensor, Tensor]) -> Tensor:
    gradient = torch.empty_like(points, memory_format=torch.contiguous_format)
    sizes = (*point_ids.shape[-3:], max(points.shape[-2], 1))
    arrays = [t.detach().contiguous().view(-1) for t in (point_ids, *grad_outputs)]
    flat, flat_radii = points.detach().contiguous().view(-1, 3), radii.detach().contiguous().view(-1)
    count = len(flat)
    if count:
        kernels = point_kernels(points.dtype)
        launch(kernels.gather, count, flat, flat_radii, *arrays, *sizes, gradient.view(-1, 3))
    return gradient


def _tiles(points: Tensor, radii: Tensor, images: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """List the points that reach each tile: `order[starts[t]:starts[t + 1]]`, ascending."""
    columns, rows = -(-width // TILE), -(-height // TILE)
    visible = points.isfinite().all(-1) & (points[:, 2] >= 0) & (radii > 0)
    xy = torch.where(visible[:, None], points[:, :2], 0)
    reach = torch.where(visible, radii, 0)[:, None] + MARGIN
    limits = torch.tensor([width, height], device=points.device)
    first = (xy - reach - 0.5).ceil().clamp(min=0).minimum(limits).long()
    last = (xy + reach + 0.5).floor().clamp(min=0).minimum(limits).long()
    size = torch.where(last > first, (last - 1) // TILE - first // TILE + 1, 0)
    counts = torch.where(visible, size.prod(-1), 0)
    owner = torch.arange(len(points), device=points.device).repeat_interleave(counts)
    step = torch.arange(len(owner), device=points.device) - (counts.cumsum(0) - counts)[owner]
    wide = size[owner, 0].clamp(min=1)
    column = first[owner, 0] // TILE + step % wide
    row = first[owner, 1] // TILE + step // wide
    image = owner // max(len(points) // max(images, 1), 1)
    tile, order = ((image * rows + row) * columns + column).sort(stable=True)
    starts = torch.searchsorted(tile, torch.arange(images * rows * columns + 1, device=points.device))
    return starts, owner[order].to(torch.int32)


@per_precision("rasterize_points", exact=True)
def point_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec3 = types.scalar, types.vec3

    @types.kernel
    def search(
        points: wp.array(dtype=vec3),
        radii: wp.array(dtype=scalar),
        starts: wp.array(dtype=wp.int64),
        order: wp.array(dtype=wp.int32),
        height: int,
        width: int,
        layers: int,
        count: int,
        point_ids: wp.array(dtype=wp.int32),
        depth: wp.array(dtype=scalar),
        squared: wp.array(dtype=scalar),
    ):
        """Insert the points of a tile into the sorted list of a pixel."""
        pixel = wp.tid()
        column, row, image = pixel % width, (pixel // width) % height, pixel // (width * height)
        columns, rows = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
        tile = (image * rows + row // TILE) * columns + column // TILE
        base = pixel * layers
        filled = int(0)
        x, y = scalar(column) + scalar(0.5), scalar(row) + scalar(0.5)
        for s in range(int(starts[tile]), int(starts[tile + 1])):
            n = order[s]
            point = points[n]
            dx, dy = point[0] - x, point[1] - y
            distance = dx * dx + dy * dy
            nearer = filled < layers
            if not nearer:
                nearer = point[2] < depth[base + layers - 1]
            if distance < radii[n] * radii[n] and nearer:
                slot = wp.min(filled, layers - 1)
                while slot > 0 and depth[base + wp.max(slot - 1, 0)] > point[2]:
                    point_ids[base + slot] = point_ids[base + slot - 1]
                    depth[base + slot] = depth[base + slot - 1]
                    squared[base + slot] = squared[base + slot - 1]
                    slot -= 1
                point_ids[base + slot] = n % count
                depth[base + slot] = point[2]
                squared[base + slot] = distance
                filled = wp.min(filled + 1, layers)
        for slot in range(filled, layers):
            point_ids[base + slot] = -1
            depth[base + slot] = scalar(0.0)
            squared[base + slot] = scalar(0.0)

    @types.kernel
    def gather(
        points: wp.array(dtype=vec3),
        radii: wp.array(dtype=scalar),
        point_ids: wp.array(dtype=wp.int32),
        grad_depth: wp.array(dtype=scalar),
        grad_squared: wp.array(dtype=scalar),
        height: int,
        width: int,
        layers: int,
        count: int,
        gradient: wp.array(dtype=vec3),
    ):
        """Sum the gradients of a point over the pixels that it reaches."""
        n = wp.tid()
        point, radius = points[n], radii[n]
        total = vec3()
        visible = wp.isfinite(point[0]) and wp.isfinite(point[1]) and wp.isfinite(point[2])
        if visible and point[2] >= scalar(0.0) and radius > scalar(0.0):
            reach = radius + scalar(MARGIN)
            zero, half = scalar(0.0), scalar(0.5)
            left = int(wp.min(wp.max(wp.ceil(point[0] - reach - half), zero), scalar(width)))
            right = int(wp.min(wp.max(wp.floor(point[0] + reach + half), zero), scalar(width)))
            top = int(wp.min(wp.max(wp.ceil(point[1] - reach - half), zero), scalar(height)))
            bottom = int(wp.min(wp.max(wp.floor(point[1] + reach + half), zero), scalar(height)))
            image = n // count
            for row in range(top, bottom):
                dy = point[1] - (scalar(row) + scalar(0.5))
                for column in range(left, right):
                    dx = point[0] - (scalar(column) + scalar(0.5))
                    if dx * dx + dy * dy < radius * radius:
                        base = ((image * height + row) * width + column) * layers
                        for slot in range(layers):
                            if point_ids[base + slot] == n % count:
                                weight = scalar(2.0) * grad_squared[base + slot]
                                total += vec3(weight * dx, weight * dy, grad_depth[base + slot])
        gradient[n] = total

    return SimpleNamespace(search=search, gather=gather)
