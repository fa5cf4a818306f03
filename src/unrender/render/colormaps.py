"""Distances and normals as colors."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.geometry.camera import Camera
from unrender.geometry.rays import rays_of

EMPTY = (0.55, 0.7, 0.95)
SOLID = 0.5
"""Opacity above which a pixel shows a surface."""


def distance_colors(
    distance: Float[Tensor, "height width"], opacity: Float[Tensor, "height width"]
) -> Float[Tensor, "height width 3"]:
    """Map distances to gray, near dark and far bright; pixels that are more than half transparent are blue."""
    solid = opacity > SOLID
    some = distance[solid][:: max(1, int(solid.sum()) // 100_000)]
    low, high = (some.quantile(q) if len(some) else distance.new_zeros(()) for q in (0.02, 0.98))
    grey = 0.1 + 0.85 * ((distance - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return torch.where(solid[..., None], grey[..., None], distance.new_tensor(EMPTY))


def normal_colors(
    distance: Float[Tensor, "height width"], opacity: Float[Tensor, "height width"], camera: Camera
) -> Float[Tensor, "height width 3"]:
    """Map normals of the surface at these distances along the camera's rays to colors; transparent pixels are blue.

    Red, green and blue are (n + 1) / 2 for the world's x, y and z; normals face the camera. They are estimated from
    neighboring pixels, and are wrong along silhouettes.
    """
    rays = rays_of(camera)
    points = rays.origins + distance[..., None] * rays.directions
    across, down = (
        torch.gradient(points, dim=axis)[0] if points.shape[axis] > 1 else None for axis in (1, 0)
    )
    if across is None or down is None:  # a row of pixels has no surface
        return distance.new_tensor(EMPTY).expand(*distance.shape, 3)
    normals = torch.nn.functional.normalize(torch.linalg.cross(down, across), dim=-1)
    normals = normals * -(normals * rays.directions).sum(-1, keepdim=True).sign()
    return torch.where((opacity > SOLID)[..., None], (normals + 1) / 2, distance.new_tensor(EMPTY))
