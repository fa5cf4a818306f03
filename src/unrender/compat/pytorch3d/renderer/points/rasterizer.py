"""Rasterizer: projects and rasterizes point clouds."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d._pickles import register
from unrender.compat.pytorch3d.renderer._rasterizer import Rasterizer
from unrender.compat.pytorch3d.renderer.mesh.rasterize_meshes import ImageSize
from unrender.compat.pytorch3d.renderer.points.rasterize_points import Radius, rasterize_points
from unrender.compat.pytorch3d.structures.pointclouds import Pointclouds
from unrender.errors import InputError


class PointFragments(NamedTuple):
    """Points at each pixel [N, H, W, K], front to back: packed indices, depths, squared distances; −1 if empty."""

    idx: Tensor
    zbuf: Tensor
    dists: Tensor


@dataclass
class PointsRasterizationSettings:
    """Settings of the rasterizer; those of bins have no effect."""

    image_size: ImageSize = 256
    radius: Radius = 0.01
    points_per_pixel: int = 8
    bin_size: int | None = None
    max_points_per_bin: int | None = None


class PointsRasterizer(Rasterizer):
    """Rasterize point clouds in world coordinates, with one camera for all or one per cloud."""

    def __init__(
        self, cameras: Any = None, raster_settings: PointsRasterizationSettings | None = None
    ) -> None:
        super().__init__(cameras, raster_settings or PointsRasterizationSettings())

    def transform(self, point_clouds: Pointclouds, **kwargs: Any) -> Pointclouds:
        """Project points to x and y in NDC, and depth."""
        cameras = kwargs.get("cameras", self.cameras)
        if cameras is None:
            raise InputError(
                "PointsRasterizer: Cameras must be specified here or when the rasterizer is made"
            )
        if len(cameras) not in (1, len(point_clouds)):
            raise InputError(
                f"PointsRasterizer: expected 1 camera, or {len(point_clouds)}, one per cloud, got {len(cameras)}"
            )
        eps = kwargs.get("eps")
        in_view = cameras.get_world_to_view_transform(**kwargs).transform_points(
            point_clouds.points_padded(), eps=eps
        )
        to_ndc = cameras.get_projection_transform(**kwargs).compose(
            cameras.get_ndc_camera_transform(**kwargs)
        )
        in_ndc = to_ndc.transform_points(in_view, eps=eps)
        return point_clouds.update_padded(torch.cat([in_ndc[..., :2], in_view[..., 2:]], -1))

    def forward(self, point_clouds: Pointclouds, **kwargs: Any) -> PointFragments:
        """Rasterize; cameras and their settings can be overridden here."""
        settings = kwargs.get("raster_settings", self.raster_settings)
        projected = self.transform(point_clouds, **kwargs)
        return PointFragments(
            *rasterize_points(projected, settings.image_size, settings.radius, settings.points_per_pixel)
        )


register(__name__)
__getattr__ = refuse_unknown(__name__)
