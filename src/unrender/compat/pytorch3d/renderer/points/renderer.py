"""Points renderer: a rasterizer and a compositor."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.points.rasterize_points import packed_radii
from unrender.compat.pytorch3d.structures.pointclouds import Pointclouds
from unrender.errors import InputError


class PointsRenderer(nn.Module):
    """Rasterize points, then composite their features with alpha 1 − d² / radius²."""

    rasterizer: Any
    compositor: Any

    def __init__(self, rasterizer: Any, compositor: Any) -> None:
        super().__init__()
        self.rasterizer = rasterizer
        self.compositor = compositor

    def to(self, device: Any, *_: Any, **__: Any) -> Self:  # type: ignore[override]
        """Move cameras and compositor to a device."""
        self.rasterizer = self.rasterizer.to(device)
        self.compositor = self.compositor.to(device)
        return self

    def forward(self, point_clouds: Pointclouds, **kwargs: Any) -> Tensor:
        """Return images [N, H, W, C]."""
        features = point_clouds.features_packed()
        if features is None:
            raise InputError("PointsRenderer: `point_clouds` should have features")
        fragments = self.rasterizer(point_clouds, **kwargs)
        settings = kwargs.get("raster_settings", self.rasterizer.raster_settings)
        if isinstance(settings.radius, int | float):
            squared: Any = settings.radius**2
        else:
            radii = packed_radii(settings.radius, point_clouds)
            squared = radii[fragments.idx.clamp(min=0)].square()
        weights = 1 - fragments.dists / squared
        ids, weights = fragments.idx.movedim(-1, 1), weights.movedim(-1, 1)
        images: Tensor = self.compositor(ids, weights, features.mT, **kwargs)
        return torch.movedim(images, 1, -1)


__getattr__ = refuse_unknown(__name__)
