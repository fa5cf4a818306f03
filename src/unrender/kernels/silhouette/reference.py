"""Soft coverage, by the definition."""

import math

import torch
from torch import Tensor

from unrender.kernels._pixels import at_pixels
from unrender.kernels.rasterize.reference import outline, polygons

LOGIT_AT_BLUR = math.log(1 / 1e-4 - 1)
"""d²/σ at which a face's coverage has fallen to 1/10,000: there, `blur` pixels away, it ends."""


def forward(points: Tensor, faces: Tensor, height: int, width: int, blur: float, near: float) -> Tensor:
    """Multiply, over all faces within `blur` pixels, 1 − sigmoid(−d²/σ) = sigmoid(d²/σ); σ = blur² / LOGIT_AT_BLUR.

    d² is the squared distance to the outline of the face in pixels², negative inside.
    """
    if points.dim() > 2:
        images = [forward(one, faces, height, width, blur, near) for one in points.flatten(0, -3)]
        return torch.stack(images).view(*points.shape[:-2], height, width)
    triangles = points[faces]
    triangles = triangles[(triangles[..., 3] >= near).any(1)]
    corners, next_corners, areas = polygons(triangles, near)

    def product(pixels: Tensor) -> Tensor:
        squared, inside = outline(pixels, corners, next_corners, areas)
        open_share = (torch.where(inside, -squared, squared) * (LOGIT_AT_BLUR / blur**2)).sigmoid()
        return torch.where(inside | (squared <= blur**2), open_share, 1).prod(-1)

    parts = at_pixels(product, points, height, width, len(triangles))
    return torch.cat(parts).view(height, width)
