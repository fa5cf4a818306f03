"""Reference implementation of rasterization: every face is tested at every pixel."""

import torch
from torch import Tensor

from unrender.kernels._pixels import at_pixels

MIN_AREA = 1e-6
"""Faces with a smaller projected area, in pixels², count as viewed edge-on and are skipped."""


def forward(
    points: Tensor, faces: Tensor, height: int, width: int, layers: int, blur: float, near: float, cull: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Test every face at every pixel and keep the nearest ones.

    Relative to the pixel at (x, y) a vertex is h = (X − x W, Y − y W). With the edge functions e_i = h_j × h_k, signed
    to be positive inside, the barycentrics are b_i = max(e_i, 0) / Σ max(e_j, 0), and the depth is Σ b_i Z_i. The
    squared distance is measured to the outline of the clipped face, negative inside.
    """
    if points.dim() > 2:
        images = [
            forward(one, faces, height, width, layers, blur, near, cull) for one in points.flatten(0, -3)
        ]
        fields = [torch.stack(field).unflatten(0, points.shape[:-2]) for field in zip(*images, strict=True)]
        return fields[0], fields[1], fields[2], fields[3]
    triangles = points[faces]
    corners, next_corners, areas = polygons(triangles, near)

    def nearest(pixels: Tensor) -> tuple[Tensor, ...]:
        relative = triangles[..., :2] - pixels[:, None, None] * triangles[..., 2:3]
        sides = torch.stack(
            [cross(relative[..., j, :], relative[..., k, :]) for j, k in ((1, 2), (2, 0), (0, 1))], -1
        )
        unnormalized = (sides * areas.sign()[:, None]).clamp(min=0)
        totals = unnormalized.sum(-1, keepdim=True)
        barycentric = unnormalized / totals.masked_fill(totals == 0, 1)
        depth = (barycentric * triangles[..., 3]).sum(-1)
        squared, inside = outline(pixels, corners, next_corners, areas)
        visible = (inside | ((squared <= blur**2) & (blur > 0) & (depth >= near))) & (areas.abs() >= MIN_AREA)
        visible &= totals[..., 0] > MIN_AREA * triangles[..., 2].abs().amin(-1).square()
        visible &= ~((areas >= 0) & cull)
        order = depth.detach().masked_fill(~visible, torch.inf).sort(dim=-1, stable=True).indices[:, :layers]
        missing = layers - order.shape[1]
        order = torch.nn.functional.pad(order, (0, missing))
        found = visible.gather(1, order) & (torch.arange(layers, device=points.device) < layers - missing)
        weights = barycentric.gather(1, order[..., None].expand(-1, -1, 3)) * found[..., None]
        selected = [t.gather(1, order) * found for t in (depth, torch.where(inside, -squared, squared))]
        return torch.where(found, order, -1).to(torch.int32), weights, *selected

    parts = at_pixels(nearest, points, height, width, len(faces))
    face_ids, weights, depth, squared = (torch.cat(field) for field in zip(*parts, strict=True))
    image = (height, width, layers)
    return face_ids.view(image), weights.view(*image, 3), depth.view(image), squared.view(image)


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Compute the 2D cross product."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def polygons(triangles: Tensor, near: float) -> tuple[Tensor, Tensor, Tensor]:
    """Clip triangles [faces, 3, 4] at the near plane.

    Returns the start and end points of 6 edges, in pixels (missing edges are repeated points), and the signed areas of
    the polygons: positive for back faces, 0 for faces behind the near plane.
    """
    following = triangles.roll(-1, 1)
    front, following_front = triangles[..., 3] >= near, following[..., 3] >= near
    rise = torch.where(front == following_front, 1, following[..., 3] - triangles[..., 3])
    t = ((near - triangles[..., 3]) / rise)[..., None]
    crossing = torch.where(
        (front != following_front)[..., None], triangles + t * (following - triangles), torch.nan
    )
    vertex = torch.where(front[..., None], triangles, torch.nan)
    around = torch.stack([vertex, crossing], 2).flatten(1, 2)
    corners = around[..., :2] / around[..., 2:3]
    for _ in range(5):  # missing corners repeat the previous one
        corners = torch.where(corners.isnan(), corners.roll(1, 1), corners)
    corners = corners.nan_to_num()
    next_corners = corners.roll(-1, 1)
    origin = corners[:, :1]
    areas = cross(corners - origin, next_corners - origin).sum(1) / 2
    return corners, next_corners, areas


def outline(pixels: Tensor, corners: Tensor, ends: Tensor, areas: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared distances [pixels, faces] to the outlines of polygons, and whether a pixel is inside."""
    to_pixel, edge = pixels[:, None, None] - corners, ends - corners
    length = edge.square().sum(-1)
    t = ((to_pixel * edge).sum(-1) / length.masked_fill(length == 0, 1)).clamp(0, 1)
    squared = (to_pixel - t[..., None] * edge).square().sum(-1).amin(-1)
    with torch.no_grad():  # not differentiable, so nothing is saved for the backward pass
        sides = cross(-to_pixel, ends - pixels[:, None, None]) * areas.sign()[:, None]
    return squared, (sides >= 0).all(-1) & (areas != 0)
