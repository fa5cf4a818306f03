"""Renderers of volumes and implicit functions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.cameras import CamerasBase
from unrender.compat.pytorch3d.renderer.implicit.raymarching import EmissionAbsorptionRaymarcher, check_alphas
from unrender.compat.pytorch3d.renderer.implicit.utils import (
    RayBundle,
    _validate_ray_bundle_variables,
    ray_bundle_variables_to_ray_points,
)
from unrender.compat.pytorch3d.structures.volumes import Volumes
from unrender.errors import InputError
from unrender.kernels.march_grid import march_grid
from unrender.kernels.sample_grid import sample_grid


class ImplicitRenderer(nn.Module):
    """Sample rays, evaluate an implicit function, and march."""

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
        """Return images [N, ..., D] and rays; the function maps a ray bundle to densities and features."""
        if not callable(volumetric_function):
            raise InputError("ImplicitRenderer: `volumetric_function` should be callable")
        ray_bundle = self.raysampler(cameras=cameras, volumetric_function=volumetric_function, **kwargs)
        densities, features, *_ = volumetric_function(ray_bundle=ray_bundle, cameras=cameras, **kwargs)
        images = self.raymarcher(
            rays_densities=densities, rays_features=features, ray_bundle=ray_bundle, **kwargs
        )
        return images, ray_bundle


class VolumeRenderer(nn.Module):
    """Sample rays, sample volumes, and march."""

    def __init__(self, raysampler: Any, raymarcher: Any, sample_mode: str = "bilinear") -> None:
        super().__init__()
        self.renderer = ImplicitRenderer(raysampler, raymarcher)
        self._sample_mode = sample_mode

    def forward(self, cameras: CamerasBase, volumes: Volumes, **kwargs: Any) -> tuple[Tensor, RayBundle]:
        """Return images [N, ..., D] and rays; one volume per camera."""
        sampler = VolumeSampler(volumes, sample_mode=self._sample_mode)
        if self._sees_at_once(volumes):
            rays = self.renderer.raysampler(cameras=cameras, volumetric_function=sampler, **kwargs)
            if not any(t.requires_grad for t in rays[:3]):
                return sampler.look_through(rays), rays
            densities, features = sampler(rays)
            return self.renderer.raymarcher(rays_densities=densities, rays_features=features), rays
        images, rays = self.renderer(cameras, sampler, **kwargs)
        return images, rays

    def _sees_at_once(self, volumes: Volumes) -> bool:
        """Return whether one kernel does both sampling and marching."""
        marcher = self.renderer.raymarcher
        usual = type(marcher) is EmissionAbsorptionRaymarcher and marcher.surface_thickness == 1
        return usual and self._sample_mode == "bilinear" and volumes.densities().shape[1] == 1


class VolumeSampler(nn.Module):
    """A volume as an implicit function."""

    def __init__(self, volumes: Volumes, sample_mode: str = "bilinear", padding_mode: str = "zeros") -> None:
        super().__init__()
        if not isinstance(volumes, Volumes):
            raise InputError(f"VolumeSampler: `volumes` should be Volumes, got {type(volumes).__name__}")
        if sample_mode not in ("bilinear", "nearest") or padding_mode not in (
            "zeros",
            "border",
            "reflection",
        ):
            raise InputError(
                "VolumeSampler: `sample_mode` should be 'bilinear' or 'nearest' and `padding_mode` 'zeros', "
                f"'border' or 'reflection', got {sample_mode!r} and {padding_mode!r}"
            )
        self._padding_mode = padding_mode
        self._volumes = volumes
        self._sample_mode = sample_mode

    def look_through(self, ray_bundle: RayBundle) -> Tensor:
        """Return features and, last, opacity [N, ..., D + 1] of rays, without gradients."""
        origins, directions, lengths = self._rays_of(ray_bundle)
        check_alphas("VolumeRenderer", self._volumes.densities()[..., None], None)
        factors, shifts = self._volumes.locator.voxels_from_world()
        shape = (len(factors), *[1] * (origins.dim() - 2), 3)
        in_voxels = origins * factors.view(shape) + shifts.view(shape), directions * factors.view(shape)
        even = all(step == 0 for step in lengths.stride()[:-1])  # one row is shared by all
        grids = self._grids()
        outputs = []
        for i, grid in enumerate(grids):
            here = slice(i, i + 1) if len(grids) > 1 else slice(None)
            starts, ways = (t[here].reshape(-1, 3) for t in in_voxels)
            distances = lengths[here].reshape(-1, lengths.shape[-1])[: 1 if even else None]
            color, opacity = march_grid(grid, starts, ways, distances.contiguous())
            outputs.append(torch.cat([color, opacity[:, None]], -1))
        return torch.cat(outputs).view(*origins.shape[:-1], -1)

    def forward(self, ray_bundle: RayBundle, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return densities [N, ..., P, 1] and features [N, ..., P, D] at the points of rays; 0 beyond the volume."""
        points = ray_bundle_variables_to_ray_points(*self._rays_of(ray_bundle))
        volumes = self._volumes
        if self._padding_mode != "zeros":
            return self._sampled_by_torch(points)
        factors, shifts = volumes.locator.voxels_from_world()
        shape = (len(factors), *[1] * (points.dim() - 2), 3)
        in_voxels = torch.addcmul(shifts.view(shape), points, factors.view(shape))
        if self._sample_mode == "nearest":
            in_voxels = in_voxels.floor() + 0.5
        found = self._look_up(in_voxels)
        channels = volumes.densities().shape[1]
        densities, features = found.split([channels, found.shape[-1] - channels], -1)
        return densities, features

    def _rays_of(self, rays: RayBundle) -> tuple[Tensor, Tensor, Tensor]:
        """Return origins, directions and lengths, checked."""
        _validate_ray_bundle_variables(rays.origins, rays.directions, rays.lengths)
        volumes, cameras = len(self._volumes), len(rays.origins)
        if volumes not in (1, cameras):
            raise InputError(f"VolumeSampler: {volumes} volumes for the rays of {cameras} cameras")
        return rays.origins, rays.directions, rays.lengths

    def _sampled_by_torch(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Sample with another value than 0 beyond the volume."""
        volumes, count = self._volumes, len(points)
        local = volumes.world_to_local_coords(points).reshape(count, -1, 1, 1, 3)
        grids = [volumes.densities()]
        features = volumes.features()
        grids += [] if features is None else [features]
        found = [
            grid_sample(
                grid.expand(count, -1, -1, -1, -1),
                local,
                mode=self._sample_mode,
                padding_mode=self._padding_mode,
                align_corners=volumes.get_align_corners(),
            )
            for grid in grids
        ]
        rows = [t[..., 0, 0].mT.reshape(*points.shape[:-1], -1) for t in found]
        return rows[0], rows[1] if len(rows) == 2 else rows[0][..., :0]

    def _grids(self) -> list[Tensor]:
        """Return densities and features, channels last, of each volume, or of the one that all share."""
        grids = [self._volumes.densities()]
        features = self._volumes.features()
        grids += [] if features is None else [features]
        shared = all(grid.stride(0) == 0 and not (grid.is_leaf and grid.requires_grad) for grid in grids)
        if len(grids[0]) == 1 or shared:
            return [torch.cat([_the_one(grid) for grid in grids]).movedim(0, -1).contiguous()]
        return list(torch.cat(grids, 1).movedim(1, -1).contiguous())

    def _look_up(self, points: Tensor) -> Tensor:
        grids = self._grids()
        rows = points.reshape(len(grids), -1, 3)
        found = [sample_grid(grid, row) for grid, row in zip(grids, rows, strict=True)]
        return torch.cat(found).view(*points.shape[:-1], -1)


def _the_one(grids: Tensor) -> Tensor:
    """Return the grid of a batch of one, or the source of an expanded one, so that one gradient flows back."""
    base, first = grids._base, grids[0]
    # both contiguous: else the source may have other axes, as channels last have
    if base is not None and base.numel() == first.numel() and base.is_contiguous() and first.is_contiguous():
        return base.view(first.shape)
    return first


__getattr__ = refuse_unknown(__name__)
