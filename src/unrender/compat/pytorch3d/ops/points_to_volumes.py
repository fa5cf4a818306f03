"""Splatting of point features into volumes."""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.structures.pointclouds import Pointclouds
from unrender.compat.pytorch3d.structures.volumes import Volumes
from unrender.errors import InputError


def add_pointclouds_to_volumes(
    pointclouds: Pointclouds,
    initial_volumes: Volumes,
    mode: str = "trilinear",
    min_weight: float = 1e-4,
    rescale_features: bool = True,
    _python: bool = False,
) -> Volumes:
    """Add the features of points to the voxels around them, and their weights to the densities.

    "trilinear" spreads a point over eight voxels, "nearest" adds it to one. With `rescale_features`, the features are
    divided by the densities, which should be at least `min_weight`.
    """
    if len(pointclouds) != len(initial_volumes):
        raise InputError(
            "add_pointclouds_to_volumes: `initial_volumes` and `pointclouds` should agree in number"
        )
    features, grids = pointclouds.features_padded(), initial_volumes.features()
    if features is None:
        raise InputError("add_pointclouds_to_volumes: `pointclouds` should have features")
    if grids is None:
        raise InputError("add_pointclouds_to_volumes: `initial_volumes` should have features")
    size = pointclouds.points_padded().shape[1]
    counts = pointclouds.num_points_per_cloud()
    mask = (torch.arange(size, device=counts.device) < counts[:, None]).to(features)
    new_features, new_densities = add_points_features_to_volume_densities_features(
        initial_volumes.world_to_local_coords(pointclouds.points_padded()),
        features,
        initial_volumes.densities(),
        grids,
        mode=mode,
        min_weight=min_weight,
        mask=mask,
        grid_sizes=initial_volumes.get_grid_sizes(),
        rescale_features=rescale_features,
        align_corners=initial_volumes.get_align_corners(),
    )
    return initial_volumes.update_padded(new_densities, new_features)


def add_points_features_to_volume_densities_features(
    points_3d: Tensor,
    points_features: Tensor,
    volume_densities: Tensor,
    volume_features: Tensor | None,
    mode: str = "trilinear",
    min_weight: float = 1e-4,
    mask: Tensor | None = None,
    grid_sizes: Tensor | None = None,
    rescale_features: bool = True,
    _python: bool = False,
    align_corners: bool = True,
) -> tuple[Tensor, Tensor]:
    """Add features [N, P, C] at local coordinates to volumes [N, C, D, H, W]; return features and densities."""
    if mode not in ("trilinear", "nearest"):
        raise ValueError(f'No such interpolation mode "{mode}"')
    count, channels = len(points_3d), points_features.shape[2]
    shape = volume_densities.shape[-3:]
    if grid_sizes is None:
        grid_sizes = torch.tensor(shape, device=points_3d.device).expand(count, 3)
    if volume_features is None:
        volume_features = points_features.new_zeros(count, channels, *shape)
    densities, features = _points_to_volumes(
        points_3d,
        points_features,
        volume_densities.clone(memory_format=torch.contiguous_format),
        volume_features.clone(memory_format=torch.contiguous_format),
        grid_sizes,
        1.0,
        torch.ones_like(points_3d[..., 0]) if mask is None else mask,
        align_corners,
        mode == "trilinear",
    )
    if rescale_features:
        features = features / densities.clamp(min=min_weight)
    return features, densities


def _points_to_volumes(
    points_3d: Tensor,
    points_features: Tensor,
    volume_densities: Tensor,
    volume_features: Tensor,
    grid_sizes: Tensor,
    point_weight: float,
    mask: Tensor,
    align_corners: bool,
    splat: bool,
) -> tuple[Tensor, Tensor]:
    """Add points to contiguous volumes in place: to the eight voxels around each, or to the nearest one."""
    channels, shape = points_features.shape[2], volume_densities.shape[-3:]
    sizes = grid_sizes.flip(1)[:, None]  # x, y, z
    edge = 1 if align_corners else 0
    positions = (points_3d + 1) / 2 * (sizes - edge) - (1 - edge) / 2
    densities, features = (
        volume_densities.view(len(sizes), -1),
        volume_features.view(len(sizes), channels, -1),
    )
    for voxel, weight in _corners(positions, splat):
        inside = ((voxel >= 0) & (voxel < sizes)).all(-1)
        weight = torch.where(inside, weight * mask * point_weight, 0)
        x, y, z = torch.where(inside[..., None], voxel, 0).unbind(-1)
        index = (z * shape[1] + y) * shape[2] + x
        densities.scatter_add_(1, index, weight)
        spread = (points_features * weight[..., None]).mT
        features.scatter_add_(2, index[:, None].expand(-1, channels, -1), spread)
    return volume_densities, volume_features


def _corners(positions: Tensor, splat: bool) -> list[tuple[Tensor, Tensor]]:
    """Return the voxels that each point adds to, and its weight in each; points are in units of voxels."""
    if not splat:
        return [(positions.detach().round().long(), torch.ones_like(positions[..., 0]))]
    low = positions.detach().floor()
    part = positions - low
    corners = []
    for offset in torch.cartesian_prod(*[torch.arange(2, device=positions.device)] * 3):
        weight = torch.where(offset > 0, part, 1 - part).prod(-1)
        corners.append((low.long() + offset, weight))
    return corners


__getattr__ = refuse_unknown(__name__)
