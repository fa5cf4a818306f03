"""Differentiable rendering of point clouds: rasterization to fragments, and compositing of their features."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.geometry.camera import Camera
from unrender.geometry.points import PointCloud
from unrender.kernels.composite import composite_alphas
from unrender.kernels.rasterize_points import PointFragments, rasterize_discs
from unrender.kernels.scatter_sum import gather_columns


def rasterize_points(
    cloud: PointCloud, camera: Camera, radius: float | Tensor = 1.5, *, layers: int = 8
) -> PointFragments:
    """Find the `layers` nearest points whose disc of `radius` pixels covers each pixel center.

    `radius` may be a number for each point, [*batch points]. Batches of clouds and cameras broadcast. The fragments
    are the input of `composite_points`; `render_points` renders clouds for viewing.

    Example: `composite_points(rasterize_points(cloud, camera, 2.0), cloud.colors, 2.0)`.
    Differentiable in: points and camera, through depths and squared distances (not twice).
    """
    if cloud.lengths is not None:
        raise InputError(
            "rasterize_points: takes clouds of one size; render those of a padded batch one by one"
        )
    points = camera.project(cloud.points)
    radii = torch.as_tensor(radius, dtype=points.dtype, device=points.device).expand(points.shape[:-1])
    return rasterize_discs(points, radii, height=camera.height, width=camera.width, layers=layers)


@checked
def composite_points(
    fragments: PointFragments,
    features: Float[Tensor, "points channels"] | Float[Tensor, "*batch points channels"],
    radius: float = 1.5,
) -> Float[Tensor, "*batch height width channels_and_alpha"]:
    """Composite the features of points front to back, with alpha α = 1 − d² / `radius`²; the last channel is opacity.

    Features without batch axes apply to every image.
    Differentiable in: features, squared distances. Source: Wiles et al., SynSin, 2020.
    """
    batch = fragments.point_ids.shape[:-3]
    filled = fragments.point_ids >= 0
    alphas = torch.where(filled, 1 - fragments.squared_distance / radius**2, 0)
    ids = fragments.point_ids.clamp(min=0).long()
    if features.dim() > 2:
        size = features.shape[-2]
        first = torch.arange(batch.numel(), device=ids.device) * size
        ids = ids + first.view(*batch, 1, 1, 1)
    columns = features.reshape(-1, features.shape[-1]).mT
    if not columns.shape[1]:
        return alphas.new_zeros(*alphas.shape[:-1], features.shape[-1] + 1)
    gathered = gather_columns(columns, ids.flatten()).mT.view(*ids.shape, -1)
    found = composite_alphas(alphas, gathered)
    assert found.color is not None
    return torch.cat([found.color, found.opacity[..., None]], -1)
