"""Reference implementation of soft silhouettes."""

import math

import torch
from torch import Tensor

from unrender.kernels._pixels import at_pixels
from unrender.kernels.rasterize.reference import outline, polygons

LOGIT_AT_BLUR = math.log(1 / 1e-4 - 1)
"""d²/σ at which the coverage of a face has dropped to 1e-4, which is `blur` pixels away."""


def forward(points: Tensor, faces: Tensor, height: int, width: int, blur: float, near: float) -> Tensor:
    """Compute Π (1 − sigmoid(−d²/σ)) = Π sigmoid(d²/σ) over all faces within `blur` pixels; σ = blur² / LOGIT_AT_BLUR.

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
        transparency = (torch.where(inside, -squared, squared) * (LOGIT_AT_BLUR / blur**2)).sigmoid()
        return torch.where(inside | (squared <= blur**2), transparency, 1).prod(-1)

    parts = at_pixels(product, points, height, width, len(triangles))
    return torch.cat(parts).view(height, width)
