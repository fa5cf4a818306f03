"""Fusion of depth maps to a consistent point cloud, or to a mesh by TSDF integration."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.geometry.rays import pixel_centers
from unrender.io.depth import points_from_depth
from unrender.render.depth import DepthView
from unrender.tasks.depth.view_consistency import (
    consistent_pixels,
    nearest_cameras,
    sample_depth,
    unproject_view,
)

TRUNCATION_VOXELS = 3.0
"""Default truncation distance, in voxels."""
DEFAULT_RESOLUTION = 192
"""Default number of voxels along the longest side."""
POINTS_PER_CHUNK = 2_000_000
OUTLIER_FRACTION = 0.001
"""Fraction of the points ignored at each end of each axis for the bounding box."""


def points_from_views(
    views: Sequence[DepthView],
    *,
    tolerance: float = 0.01,
    num_neighbors: int = 8,
    min_consistent_views: int = 2,
    spacing: float | None = None,
) -> PointCloud:
    """Fuse the depth maps of several views to a point cloud of consistent points, with normals and colors.

    A point is consistent with another view if the depth of that view at its pixel differs by at most `tolerance`,
    relatively; it is inconsistent if that view measures a surface behind the point. Points are kept if at least
    `min_consistent_views` of the nearest `num_neighbors` views are consistent, and more are consistent than
    inconsistent. Normals are estimated from neighboring pixels, towards the camera; flying pixels are removed.

    With `spacing`, the cloud is downsampled to one point per voxel of this size: see `voxel_downsample`.
    Raises InputError if no point is consistent.
    """
    if not (len(views) >= 2 and 0 < tolerance < 1 and min_consistent_views >= 1 and num_neighbors >= 1):
        raise InputError(
            "points_from_views: expected at least 2 views, 0 < `tolerance` < 1, and `min_consistent_views` and "
            f"`num_neighbors` of at least 1; got {len(views)} views, {tolerance}, {min_consistent_views} and "
            f"{num_neighbors}"
        )
    views = [_undistort(view) for view in views]
    neighbors = nearest_cameras([view.camera for view in views], num_neighbors)
    clouds = [
        _consistent_points(
            view, [views[i] for i in others], tolerance, min(min_consistent_views, len(views) - 1)
        )
        for view, others in zip(views, neighbors, strict=True)
    ]
    points, normals, colors = zip(*clouds, strict=True)
    with_color = [chunk for chunk in colors if chunk is not None]
    cloud = PointCloud(
        torch.cat(points),
        torch.cat(normals),
        torch.cat(with_color) if len(with_color) == len(views) else None,
    )
    if len(cloud.points) == 0:
        raise InputError(
            "points_from_views: no point is consistent between views; increase `tolerance`, train longer, or "
            "check the unit of the depth images"
        )
    return cloud if spacing is None else voxel_downsample(cloud, spacing)


def _consistent_points(
    view: DepthView, others: Sequence[DepthView], tolerance: float, min_consistent_views: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    shape = points_from_depth(view.depth, view.camera.focal, view.camera.center)
    view = view.replace(depth=torch.where(shape.valid, view.depth, 0))
    kept = consistent_pixels(view, others, tolerance, min_consistent_views)
    points, _ = unproject_view(view.replace(depth=torch.where(kept, view.depth, 0)))
    world_from_camera = view.camera.world_from_camera[:3, :3]
    normals = (shape.normals[kept][:, None] * world_from_camera).sum(-1)
    return points, normals, None if view.color is None else view.color[kept]


def _undistort(view: DepthView) -> DepthView:
    """Remove lens distortion from a view, by nearest-neighbor sampling."""
    if view.camera.projection != "perspective":
        raise InputError(
            f"points_from_views: all cameras should be perspective, got one that is {view.camera.projection}; a mesh "
            "can be fused from any"
        )
    if view.camera.lens is None:
        return view
    camera = view.camera.replace(lens=None)
    ones = view.depth.new_ones(camera.height, camera.width, 1)
    points = camera.unproject(torch.cat([pixel_centers(camera), ones], -1).flatten(0, 1))
    sampled = sample_depth(view, points)
    size = (camera.height, camera.width)
    color = None if view.color is None else view.color.flatten(0, 1)[sampled.pixel].unflatten(0, size)
    return DepthView(camera, sampled.measured.unflatten(0, size), color)


def voxel_downsample(cloud: PointCloud, spacing: float) -> PointCloud:
    """Downsample a point cloud: replace the points in each voxel of side `spacing` with their mean.

    Normals and colors are averaged as well. `spacing` is in world units.
    """
    if not 0 < spacing < math.inf:
        raise InputError(f"voxel_downsample: `spacing` should be positive and finite, got {spacing}")
    cells = ((cloud.points - cloud.points.amin(0)) / spacing).long()
    _, cell, counts = cells.unique(dim=0, return_inverse=True, return_counts=True)

    def mean(values: Tensor) -> Tensor:
        sums = values.new_zeros(len(counts), values.shape[1], dtype=torch.float64)
        sums.index_add_(0, cell, values.double())
        averages: Tensor = sums / counts[:, None]
        return averages.to(values.dtype)

    normals = None if cloud.normals is None else torch.nn.functional.normalize(mean(cloud.normals), dim=-1)
    return PointCloud(mean(cloud.points), normals, None if cloud.colors is None else mean(cloud.colors))


class _Band(NamedTuple):
    """The voxels of a grid that are near surfaces."""

    low: Float[Tensor, "3"]
    voxel_size: float
    near: Bool[Tensor, "x y z"]
    centers: Float[Tensor, "voxels 3"]


def fuse_depths(
    views: Sequence[DepthView],
    *,
    voxel_size: float | None = None,
    truncation: float | None = None,
    closed: bool = False,
    min_views: int = 1,
) -> Mesh:
    """Fuse depth maps to a mesh with vertex colors, by TSDF integration and marching cubes.

    Every voxel near a measured surface stores the mean over views of the truncated signed distance z' − z to the
    measured depth z'; views in which it is occluded do not contribute. An infinite depth says that a pixel shows no
    surface. Faces are counter-clockwise seen from the
    cameras.

    `voxel_size` defaults to 1/192 of the longest side of the bounding box without outliers, `truncation` to three
    voxels; it should be less than the thickness of thin structures, and larger than the depth errors.

    Voxels that less than `min_views` views observed are unknown: the surface ends there.

    The surface ends where no view measured it. With `closed`, it continues on the far side, `truncation` and a voxel
    behind what was measured, so that the mesh is watertight; enclosed cavities are filled.
    Source: Curless and Levoy, A volumetric method for building complex models from range images, 1996.
    """
    if not views:
        raise InputError("fuse_depths: `views` should have at least one view, got none")
    if min_views < 1:
        raise InputError(f"fuse_depths: `min_views` should be at least 1, got {min_views}")
    band = _band(views, voxel_size, truncation)
    reach = TRUNCATION_VOXELS * band.voxel_size if truncation is None else truncation
    total, weight = band.centers.new_zeros(2, len(band.centers)).unbind()
    has_colors = all(view.color is not None for view in views)
    colors, color_weight = torch.zeros_like(band.centers), torch.zeros_like(band.centers[:, :1])
    for view in views:
        sampled = sample_depth(view, band.centers)
        distance = sampled.measured - sampled.expected
        observed = (sampled.measured > 0) & (distance > -reach)
        total += torch.where(observed, (distance / reach).clamp(max=1), 0)
        weight += observed
        if has_colors:
            assert view.color is not None
            near_surface = (observed & (distance < reach)).float()[:, None]
            colors += near_surface * view.color.flatten(0, 1)[sampled.pixel]
            color_weight += near_surface
    mesh = _surface(band, total / weight.clamp(min=1), weight >= min_views, closed)
    if not has_colors:
        return mesh
    voxel_colors = colors / color_weight.clamp(min=1)
    return mesh.replace(vertex_colors=_at_vertices(mesh, band, voxel_colors).clamp(0, 1))


def _band(views: Sequence[DepthView], voxel_size: float | None, truncation: float | None) -> _Band:
    points = torch.cat([unproject_view(view)[0] for view in views])
    if len(points) == 0:
        raise InputError("fuse_depths: none of the views has valid depth")
    low, high = _box(points)
    size = voxel_size or float((high - low).max()) / DEFAULT_RESOLUTION
    reach = TRUNCATION_VOXELS * size if truncation is None else truncation
    if not (0 < size < math.inf and size <= reach < math.inf):
        raise InputError(
            f"fuse_depths: `voxel_size` should be positive and `truncation` at least as large, got {size} and {reach}"
        )
    rim = math.ceil(reach / size) + 1
    low = low - rim * size
    shape = [int(n) + 2 * rim for n in ((high - low) / size).ceil()]
    if math.prod(shape) > 2**30:
        raise InputError(
            f"fuse_depths: {' × '.join(map(str, shape))} voxels are too many; increase `voxel_size`"
        )
    near = _marked(points, low, size, shape, rim)
    return _Band(low, size, near, low + (near.nonzero() + 0.5) * size)


def _box(points: Tensor) -> tuple[Tensor, Tensor]:
    some = points[:: max(1, len(points) // 1_000_000)]
    ordered = some.sort(0).values
    cut = int(OUTLIER_FRACTION * len(some))
    return ordered[cut], ordered[len(some) - 1 - cut]


def _marked(points: Tensor, low: Tensor, size: float, shape: Sequence[int], rim: int) -> Tensor:
    """Mark the voxels that contain a point, dilated by `rim` voxels."""
    marked = torch.zeros(*shape, dtype=torch.bool, device=points.device)
    end = torch.tensor(shape, device=points.device)
    for chunk in points.split(POINTS_PER_CHUNK):
        voxels = ((chunk - low) / size).floor().long()
        inside = ((voxels >= 0) & (voxels < end)).all(-1)
        marked[voxels[inside].unbind(-1)] = True
    for axis in range(3):
        marked = _dilate(marked, axis, rim)
    return marked


def _dilate(marked: Tensor, axis: int, steps: int) -> Tensor:
    result = marked.clone()
    length = marked.shape[axis]
    for step in range(1, min(steps, length - 1) + 1):
        result.narrow(axis, step, length - step).logical_or_(marked.narrow(axis, 0, length - step))
        result.narrow(axis, 0, length - step).logical_or_(marked.narrow(axis, step, length - step))
    return result


def _surface(band: _Band, values: Tensor, is_known: Tensor, closed: bool) -> Mesh:
    from skimage.measure import marching_cubes

    if closed:
        values, is_known = torch.where(is_known, values, -1), torch.ones_like(is_known)
    dense, mask = torch.ones_like(band.near, dtype=torch.float32), torch.zeros_like(band.near)
    dense[band.near], mask[band.near] = values, is_known
    if closed:
        dense, mask = _closed(dense), torch.ones_like(mask)
    crosses = bool((values[is_known] < 0).any() and (values[is_known] > 0).any())
    if crosses:
        inner = _surrounded(mask).cpu().numpy()
        crosses = bool(inner.any())
    if not crosses:
        raise InputError(
            "fuse_depths: the views have no consistent surface; increase `voxel_size` or `truncation`"
        )
    vertices, faces, _, _ = marching_cubes(dense.cpu().numpy(), 0.0, mask=inner, gradient_direction="descent")
    cells, corners = (
        torch.from_numpy(array).to(band.low.device) for array in (vertices.copy(), faces.astype(np.int64))
    )
    return Mesh((band.low + (cells + 0.5) * band.voxel_size).float(), corners)


def _closed(dense: Tensor) -> Tensor:
    """Fill enclosed cavities, and leave the border of the grid outside."""
    from scipy.ndimage import binary_fill_holes

    solid = (dense < 0).cpu().numpy()
    cavity = torch.from_numpy(binary_fill_holes(solid) & ~solid).to(dense.device)
    border = torch.ones_like(cavity)
    border[1:-1, 1:-1, 1:-1] = False
    return dense.masked_fill(cavity, -1).masked_fill(border, 1)


def _surrounded(mask: Tensor) -> Tensor:
    """Keep the voxels whose seven preceding neighbors are known, as skimage checks the mask at the last corner only."""
    result = mask.clone()
    for axis in range(3):
        length = result.shape[axis]
        before = result.narrow(axis, 0, length - 1).clone()
        result.narrow(axis, 1, length - 1).logical_and_(before)
        result.narrow(axis, 0, 1).zero_()
    return result


def _at_vertices(mesh: Mesh, band: _Band, colors: Tensor) -> Tensor:
    """Return the color of the voxel that contains each vertex."""
    row = torch.full(band.near.shape, -1, dtype=torch.int32, device=colors.device)
    row[band.near] = torch.arange(len(colors), dtype=torch.int32, device=colors.device)
    voxels = ((mesh.vertices - band.low) / band.voxel_size).floor().long()
    return colors[row[voxels.unbind(-1)].long()]
