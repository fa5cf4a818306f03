"""Gaussian splatting on a GPU: one thread per pixel, which composites the Gaussians of its tile."""

from types import SimpleNamespace
from typing import NamedTuple

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision
from unrender.kernels.splat_gaussians import reference

TILE = 16
"""Pixels along the side of a tile."""
MARGIN, SLACK = 0.01, 1e-3
"""In pixels, and for exponents: more than their rounding."""
MIN_ALPHA = wp.constant(reference.MIN_ALPHA)
MAX_ALPHA = wp.constant(reference.MAX_ALPHA)
MIN_TRANSMITTANCE = wp.constant(reference.MIN_TRANSMITTANCE)


class _Tiles(NamedTuple):
    """Gaussians as they are evaluated, and those that reach each tile: `order[starts[t]:starts[t + 1]]`, ascending."""

    shapes: Tensor
    """Mean x and y; entries xx, xy and yy of the inverse covariance; opacity; lowest exponent [gaussians, 7]."""
    starts: Tensor
    order: Tensor


def forward(
    means: Tensor,
    covariances: Tensor,
    opacities: Tensor,
    distances: Tensor,
    gradients: Tensor,
    colors: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    color = means.new_empty(height, width, 3)
    opacity, distance = means.new_empty(height, width), means.new_empty(height, width)
    tiles = _tiles(means, covariances, opacities, height, width)
    values = torch.cat([distances[:, None], gradients, colors], 1).contiguous().view(-1)
    outputs = [t.view(-1) for t in (color, opacity, distance)]
    launch(splat_kernels(means.dtype).composite, height * width, *_flat(tiles), values, width, *outputs)
    return color, opacity, distance


def weights(
    means: Tensor, covariances: Tensor, opacities: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    arrays = _flat(_tiles(means, covariances, opacities, height, width))
    kernels, device = splat_kernels(means.dtype), means.device
    offsets = torch.zeros(height * width + 1, dtype=torch.int64, device=device)
    launch(kernels.count, height * width, *arrays, width, offsets[1:])
    offsets.cumsum_(0)
    total = int(offsets[-1])
    ids, found = torch.empty(total, dtype=torch.int32, device=device), means.new_empty(total)
    if total:
        launch(kernels.fill, height * width, *arrays, width, offsets, ids, found)
    return ids, found, offsets


def _flat(tiles: _Tiles) -> tuple[Tensor, Tensor, Tensor]:
    return tiles.shapes.view(-1), tiles.starts, tiles.order


def _tiles(means: Tensor, covariances: Tensor, opacities: Tensor, height: int, width: int) -> _Tiles:
    """Prepare Gaussians, and list those that reach each tile."""
    xx, xy, yy = covariances.double().unbind(-1)
    determinant = xx * yy - xy * xy
    valid = (determinant > 0) & (xx > 0) & determinant.isfinite() & means.isfinite().all(-1)
    valid &= opacities >= reference.MIN_ALPHA
    determinant = torch.where(valid, determinant, 1)
    lowest = torch.where(valid, opacities / reference.MIN_ALPHA, 1).double().log()
    columns = (yy / determinant, -xy / determinant, xx / determinant, opacities.double(), -lowest - SLACK)
    shapes = torch.cat([means, torch.stack(columns, -1).to(means.dtype)], -1).contiguous()
    reach = (2 * lowest[:, None] * torch.stack([xx, yy], -1).clamp(min=0)).sqrt() + MARGIN
    center = torch.where(valid[:, None], means, 0).double()
    limits = torch.tensor([width, height], device=means.device, dtype=torch.float64)
    first = (center - reach - 0.5).ceil().clamp(min=0).minimum(limits).long()
    last = (center + reach + 0.5).floor().clamp(min=0).minimum(limits).long()
    size = torch.where(last > first, (last - 1) // TILE - first // TILE + 1, 0)
    counts = torch.where(valid, size.prod(-1), 0)
    owner = torch.arange(len(means), device=means.device).repeat_interleave(counts)
    step = torch.arange(len(owner), device=means.device) - (counts.cumsum(0) - counts)[owner]
    wide = size[owner, 0].clamp(min=1)
    per_row, rows = -(-width // TILE), -(-height // TILE)
    column, row = first[owner, 0] // TILE + step % wide, first[owner, 1] // TILE + step // wide
    tile, order = (row * per_row + column).sort(stable=True)
    starts = torch.searchsorted(tile, torch.arange(rows * per_row + 1, device=means.device))
    return _Tiles(shapes, starts, owner[order].to(torch.int32))


@per_precision("splat_gaussians")
def splat_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar = types.scalar

    @wp.func
    def alpha_at(shapes: wp.array(dtype=scalar), n: int, x: scalar, y: scalar):
        """Return the alpha of a Gaussian at a pixel; 0 below the smallest."""
        base = n * 7
        dx, dy = x - shapes[base], y - shapes[base + 1]
        exponent = scalar(-0.5) * (shapes[base + 2] * dx * dx + shapes[base + 4] * dy * dy)
        exponent -= shapes[base + 3] * dx * dy
        if exponent < shapes[base + 6]:
            return scalar(0.0)
        alpha = wp.min(shapes[base + 5] * wp.exp(exponent), scalar(MAX_ALPHA))
        if alpha < scalar(MIN_ALPHA):
            return scalar(0.0)
        return alpha

    @wp.func
    def tile_of(pixel: int, width: int) -> int:
        """Return the number of the tile of a pixel."""
        return (pixel // width // TILE) * ((width + TILE - 1) // TILE) + pixel % width // TILE

    @types.kernel
    def composite(
        shapes: wp.array(dtype=scalar),
        starts: wp.array(dtype=wp.int64),
        order: wp.array(dtype=wp.int32),
        values: wp.array(dtype=scalar),
        width: int,
        color: wp.array(dtype=scalar),
        opacity: wp.array(dtype=scalar),
        distance: wp.array(dtype=scalar),
    ):
        pixel = wp.tid()
        x, y = scalar(pixel % width) + scalar(0.5), scalar(pixel // width) + scalar(0.5)
        tile = tile_of(pixel, width)
        transmittance, total, mean = scalar(1.0), scalar(0.0), scalar(0.0)
        red, green, blue = scalar(0.0), scalar(0.0), scalar(0.0)
        for s in range(int(starts[tile]), int(starts[tile + 1])):
            n = order[s]
            alpha = alpha_at(shapes, n, x, y)
            if alpha > scalar(0.0):
                after = transmittance * (scalar(1.0) - alpha)
                if after < scalar(MIN_TRANSMITTANCE):
                    break
                w = alpha * transmittance
                transmittance = after
                v = n * 6
                dx, dy = x - shapes[n * 7], y - shapes[n * 7 + 1]
                total += w
                mean += w * (values[v] + values[v + 1] * dx + values[v + 2] * dy)
                red += w * values[v + 3]
                green += w * values[v + 4]
                blue += w * values[v + 5]
        color[3 * pixel] = red
        color[3 * pixel + 1] = green
        color[3 * pixel + 2] = blue
        opacity[pixel] = total
        if total > scalar(0.0):
            mean /= total
        distance[pixel] = mean

    @types.kernel
    def count(
        shapes: wp.array(dtype=scalar),
        starts: wp.array(dtype=wp.int64),
        order: wp.array(dtype=wp.int32),
        width: int,
        counts: wp.array(dtype=wp.int64),
    ):
        pixel = wp.tid()
        x, y = scalar(pixel % width) + scalar(0.5), scalar(pixel // width) + scalar(0.5)
        tile = tile_of(pixel, width)
        transmittance, found = scalar(1.0), wp.int64(0)
        for s in range(int(starts[tile]), int(starts[tile + 1])):
            alpha = alpha_at(shapes, order[s], x, y)
            if alpha > scalar(0.0):
                transmittance *= scalar(1.0) - alpha
                if transmittance < scalar(MIN_TRANSMITTANCE):
                    break
                found += wp.int64(1)
        counts[pixel] = found

    @types.kernel
    def fill(
        shapes: wp.array(dtype=scalar),
        starts: wp.array(dtype=wp.int64),
        order: wp.array(dtype=wp.int32),
        width: int,
        offsets: wp.array(dtype=wp.int64),
        gaussian_ids: wp.array(dtype=wp.int32),
        found: wp.array(dtype=scalar),
    ):
        pixel = wp.tid()
        x, y = scalar(pixel % width) + scalar(0.5), scalar(pixel // width) + scalar(0.5)
        tile = tile_of(pixel, width)
        transmittance, slot = scalar(1.0), int(offsets[pixel])
        for s in range(int(starts[tile]), int(starts[tile + 1])):
            alpha = alpha_at(shapes, order[s], x, y)
            if alpha > scalar(0.0):
                after = transmittance * (scalar(1.0) - alpha)
                if after < scalar(MIN_TRANSMITTANCE):
                    break
                gaussian_ids[slot] = order[s]
                found[slot] = alpha * transmittance
                transmittance = after
                slot += 1

    return SimpleNamespace(composite=composite, count=count, fill=fill)
