"""Reference implementation of point rasterization: every point is tested at every pixel."""

import torch
from torch import Tensor

from unrender.kernels._pixels import at_pixels


def forward(
    points: Tensor, radii: Tensor, height: int, width: int, layers: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Test every point at every pixel and keep the nearest ones.

    Point i, at (X_i, Y_i) with depth Z_i ≥ 0, covers the pixel at (x, y) if d² = (X_i − x)² + (Y_i − y)² < r_i². The
    points of a pixel are sorted by depth, those of equal depth by index.
    """
    if points.dim() > 2:
        flat = zip(points.flatten(0, -3), radii.flatten(0, -2), strict=True)
        images = [forward(one, radius, height, width, layers) for one, radius in flat]
        fields = [torch.stack(field).unflatten(0, points.shape[:-2]) for field in zip(*images, strict=True)]
        return fields[0], fields[1], fields[2]
    image = (height, width, layers)
    if not len(points):
        empty = points.new_zeros(image) + points.sum()
        return torch.full(image, -1, dtype=torch.int32, device=points.device), empty, empty

    def nearest(pixels: Tensor) -> tuple[Tensor, ...]:
        squared = (points[:, :2] - pixels[:, None]).square().sum(-1)
        depth = points[:, 2].expand_as(squared)
        visible = (squared < radii.square()) & (depth >= 0) & torch.isfinite(depth)
        order = depth.detach().masked_fill(~visible, torch.inf).sort(dim=-1, stable=True).indices[:, :layers]
        missing = layers - order.shape[1]
        order = torch.nn.functional.pad(order, (0, missing))
        found = visible.gather(1, order) & (torch.arange(layers, device=points.device) < layers - missing)
        selected = [torch.where(found, t.gather(1, order), 0) for t in (depth, squared)]
        return torch.where(found, order, -1).to(torch.int32), *selected

    parts = at_pixels(nearest, points, height, width, len(points))
    point_ids, depth, squared = (torch.cat(field).view(image) for field in zip(*parts, strict=True))
    return point_ids, depth, squared
