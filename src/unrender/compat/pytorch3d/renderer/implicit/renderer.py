"""Cameras, and a volume or an implicit function, become pictures."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.cameras import CamerasBase
from unrender.compat.pytorch3d.renderer.implicit.utils import RayBundle, ray_bundle_to_ray_points
from unrender.compat.pytorch3d.structures.volumes import Volumes
from unrender.errors import InputError
from unrender.kernels.sample_grid import sample_grid


class ImplicitRenderer(nn.Module):
    """Sample rays, ask a function what is there, and march."""

    raysampler: Any
    raymarcher: Any

    def __init__(self, raysampler: Any, raymarcher: Any) -> None:
        super().__init__()
        for name, value in (("raysampler", raysampler), ("raymarcher", raymarcher)):
            if not callable(value):
                raise InputError(f"ImplicitRenderer: `{name}` should be callable, got {type(value).__name__}")
        self.raysampler = raysampler
        self.raymarcher = raymarcher

    def forward(
        self, cameras: CamerasBase, volumetric_function: Callable[..., Any], **kwargs: Any
    ) -> tuple[Tensor, RayBundle]:
        """Return pictures [N, ..., D] and rays; the function gives densities and features of a ray bundle."""
        if not callable(volumetric_function):
            raise InputError("ImplicitRenderer: `volumetric_function` should be callable")
        ray_bundle = self.raysampler(cameras=cameras, volumetric_function=volumetric_function, **kwargs)
        densities, features, *_ = volumetric_function(ray_bundle=ray_bundle, cameras=cameras, **kwargs)
        images = self.raymarcher(
            rays_densities=densities, rays_features=features, ray_bundle=ray_bundle, **kwargs
        )
        return images, ray_bundle


class VolumeRenderer(nn.Module):
    """Sample rays, look up volumes, and march."""

    def __init__(self, raysampler: Any, raymarcher: Any, sample_mode: str = "bilinear") -> None:
        super().__init__()
        self.renderer = ImplicitRenderer(raysampler, raymarcher)
        self._sample_mode = sample_mode

    def forward(self, cameras: CamerasBase, volumes: Volumes, **kwargs: Any) -> tuple[Tensor, RayBundle]:
        """Return pictures [N, ..., D] and rays; one volume for each camera."""
        sampler = VolumeSampler(volumes, sample_mode=self._sample_mode)
        images, rays = self.renderer(cameras, sampler, **kwargs)
        return images, rays


class VolumeSampler(nn.Module):
    """A volume as an implicit function."""

    def __init__(self, volumes: Volumes, sample_mode: str = "bilinear", padding_mode: str = "zeros") -> None:
        super().__init__()
        if not isinstance(volumes, Volumes):
            raise InputError(f"VolumeSampler: `volumes` should be Volumes, got {type(volumes).__name__}")
        if sample_mode not in ("bilinear", "nearest") or padding_mode != "zeros":
            raise InputError(
                "VolumeSampler: `sample_mode` should be 'bilinear' or 'nearest' and `padding_mode` 'zeros', got "
                f"{sample_mode!r} and {padding_mode!r}"
            )
        self._volumes = volumes
        self._sample_mode = sample_mode

    def forward(self, ray_bundle: RayBundle, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return densities [N, ..., P, 1] and features [N, ..., P, D] at the points of rays; 0 beyond the volume."""
        points = ray_bundle_to_ray_points(ray_bundle)
        volumes = self._volumes
        if len(volumes) not in (1, len(points)):
            raise InputError(f"VolumeSampler: {len(volumes)} volumes for the rays of {len(points)} cameras")
        factors, shifts = volumes.voxels_from_world()
        shape = (len(factors), *[1] * (points.dim() - 2), 3)
        in_voxels = torch.addcmul(shifts.view(shape), points, factors.view(shape))
        if self._sample_mode == "nearest":
            in_voxels = in_voxels.floor() + 0.5
        found = self._look_up(in_voxels)
        channels = volumes.densities().shape[1]
        densities, features = found.split([channels, found.shape[-1] - channels], -1)
        return densities, features

    def _look_up(self, points: Tensor) -> Tensor:
        grids = [self._volumes.densities()]
        features = self._volumes.features()
        grids += [] if features is None else [features]
        if len(grids[0]) == 1 or all(grid.stride(0) == 0 for grid in grids):
            grid = torch.cat([_the_one(grid) for grid in grids]).movedim(0, -1).contiguous()
            return sample_grid(grid, points.reshape(-1, 3)).view(*points.shape[:-1], -1)
        grid = torch.cat(grids, 1).movedim(1, -1).contiguous()
        return sample_grid(grid, points.reshape(len(points), -1, 3)).view(*points.shape[:-1], -1)


def _the_one(grids: Tensor) -> Tensor:
    """Return the grid of a batch of one, or of one that was expanded: as it was, so that one gradient flows back."""
    base = grids._base
    if base is not None and base.numel() == grids[0].numel() and base.is_contiguous():
        return base.view(grids.shape[1:])
    return grids[0]


__getattr__ = refuse_unknown(__name__)
