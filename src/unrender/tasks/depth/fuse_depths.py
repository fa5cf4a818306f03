"""Depths of many views, fused: points that the views agree on, and the surface between them."""

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
from unrender.tasks.depth.compare_depths import look_at_points, neighbors_of, points_of

TRUNCATION = 3.0
"""Voxels before and behind a surface that know their distance to it."""
VOXELS = 192
"""Along the longest side, unless told otherwise."""
POINTS_AT_ONCE = 2_000_000
OUTLIERS = 0.001
"""Share of the points at each end of each axis that do not count for how large the surface is."""


def points_from_views(
    views: Sequence[DepthView],
    *,
    tolerance: float = 0.01,
    num_neighbors: int = 8,
    agreeing: int = 2,
    spacing: float | None = None,
) -> PointCloud:
    """Return the points of all views that other views agree with, in the world, with normals and colors.

    A view agrees with a point when the depth that it sees there differs by at most `tolerance`, relatively; it objects
    when it sees something behind the point. Points stay with which at least `agreeing` of the nearest `num_neighbors`
    views agree, and more agree than object; of few views, all others have to agree. Normals are those of planes through
    neighbouring pixels, towards the camera; pixels in the air between two surfaces are left out.

    spacing: keep one point, the mean, in each cube of this side.
    """
    if not (len(views) >= 2 and 0 < tolerance < 1 and agreeing >= 1 and num_neighbors >= 1):
        raise InputError(
            "points_from_views: takes at least 2 views, a `tolerance` above 0 and below 1, and `agreeing` and "
            f"`num_neighbors` of at least 1; got {len(views)}, {tolerance}, {agreeing}, {num_neighbors}"
        )
    views = [_straight(view) for view in views]
    around = neighbors_of([view.camera for view in views], num_neighbors)
    clouds = [
        _agreed(view, [views[i] for i in others], tolerance, min(agreeing, len(views) - 1))
        for view, others in zip(views, around, strict=True)
    ]
    points, normals, colors = zip(*clouds, strict=True)
    known = [part for part in colors if part is not None]
    cloud = PointCloud(
        torch.cat(points), torch.cat(normals), torch.cat(known) if len(known) == len(views) else None
    )
    if len(cloud.points) == 0:
        raise InputError(
            "points_from_views: no two views agree on any point; raise `tolerance`, or fit longer"
        )
    return cloud if spacing is None else voxel_downsample(cloud, spacing)


def _agreed(
    view: DepthView, others: Sequence[DepthView], tolerance: float, agreeing: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    shape = points_from_depth(view.depth, view.camera.focal, view.camera.center)
    view = view.replace(depth=torch.where(shape.valid, view.depth, 0))
    points, there = points_of(view)
    agree, object_ = torch.zeros(len(points)), torch.zeros(len(points))
    for other in others:
        seen = look_at_points(other, points)
        room = tolerance * seen.measured
        known = seen.measured > 0
        agree += known & ((seen.expected - seen.measured).abs() <= room)
        object_ += known & (seen.measured - seen.expected > room)
    kept = (agree >= agreeing) & (agree > object_)
    world_from_camera = view.camera.world_from_camera[:3, :3]
    normals = (shape.normals[there][kept][:, None] * world_from_camera).sum(-1)
    return points[kept], normals, None if view.color is None else view.color[there][kept]


def _straight(view: DepthView) -> DepthView:
    """Return the view without the distortion of its lens: at each place, the nearest pixel's."""
    if view.camera.projection != "perspective":
        raise InputError("points_from_views: cameras should be perspective")
    if view.camera.lens is None:
        return view
    camera = view.camera.replace(lens=None)
    ones = torch.ones(camera.height, camera.width, 1)
    places = camera.unproject(torch.cat([pixel_centers(camera), ones], -1).flatten(0, 1))
    seen = look_at_points(view, places)
    size = (camera.height, camera.width)
    color = None if view.color is None else view.color.flatten(0, 1)[seen.pixel].unflatten(0, size)
    return DepthView(camera, seen.measured.unflatten(0, size), color)


def voxel_downsample(cloud: PointCloud, spacing: float) -> PointCloud:
    """Replace the points in each cube of side `spacing` by their mean, with the mean normal and color."""
    if not 0 < spacing < math.inf:
        raise InputError(f"voxel_downsample: `spacing` should be a length > 0, got {spacing}")
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
    """Voxels near surfaces, in a grid."""

    low: Float[Tensor, "3"]
    voxel_size: float
    near: Bool[Tensor, "x y z"]
    centers: Float[Tensor, "voxels 3"]


def fuse_depths(
    views: Sequence[DepthView], *, voxel_size: float | None = None, truncation: float | None = None
) -> Mesh:
    """Return the surface that the depths of many views agree on best, with vertex colors.

    Every voxel near a measured surface gets the mean over views of the distance before what they see, z' − z, cut off
    at `truncation`; of views for which it lies further behind, none counts. Where the mean is 0, marching cubes finds
    the surface. Faces are counterclockwise seen from where the cameras stood.

    voxel_size: by default a 192nd of the longest side of all points but the outermost 0.1 %. truncation: by default
    three voxels; less than the thickness of thin parts, more than the errors of depths.
    Source: Curless and Levoy, A volumetric method for building complex models from range images, 1996.
    """
    if not views:
        raise InputError("fuse_depths: takes at least one view, got none")
    band = _band(views, voxel_size, truncation)
    reach = TRUNCATION * band.voxel_size if truncation is None else truncation
    total, weight = torch.zeros(len(band.centers)), torch.zeros(len(band.centers))
    has_colors = all(view.color is not None for view in views)
    colors, shine = torch.zeros(len(band.centers), 3), torch.zeros(len(band.centers), 1)
    for view in views:
        seen = look_at_points(view, band.centers)
        before = seen.measured - seen.expected
        counts = (seen.measured > 0) & (before > -reach)
        total += torch.where(counts, (before / reach).clamp(max=1), 0)
        weight += counts
        if has_colors:
            assert view.color is not None
            on = (counts & (before < reach)).float()[:, None]
            colors += on * view.color.flatten(0, 1)[seen.pixel]
            shine += on
    mesh = _surface(band, total / weight.clamp(min=1), weight > 0)
    if not has_colors:
        return mesh
    return mesh.replace(vertex_colors=_at_vertices(mesh, band, colors / shine.clamp(min=1)).clamp(0, 1))


def _band(views: Sequence[DepthView], voxel_size: float | None, truncation: float | None) -> _Band:
    points = torch.cat([points_of(view)[0] for view in views])
    if len(points) == 0:
        raise InputError("fuse_depths: no view has any depth")
    low, high = _box(points)
    size = voxel_size or float((high - low).max()) / VOXELS
    reach = TRUNCATION * size if truncation is None else truncation
    if not (0 < size < math.inf and size <= reach < math.inf):
        raise InputError(
            f"fuse_depths: `voxel_size` should be positive and `truncation` at least as much, got {size} and {reach}"
        )
    rim = math.ceil(reach / size) + 1
    low = low - rim * size
    shape = [int(n) + 2 * rim for n in ((high - low) / size).ceil()]
    if math.prod(shape) > 2**30:
        raise InputError(
            f"fuse_depths: {' × '.join(map(str, shape))} voxels are too many; give a larger `voxel_size`"
        )
    near = _marked(points, low, size, shape, rim)
    return _Band(low, size, near, low + (near.nonzero() + 0.5) * size)


def _box(points: Tensor) -> tuple[Tensor, Tensor]:
    some = points[:: max(1, len(points) // 1_000_000)]
    ordered = some.sort(0).values
    cut = int(OUTLIERS * len(some))
    return ordered[cut], ordered[len(some) - 1 - cut]


def _marked(points: Tensor, low: Tensor, size: float, shape: Sequence[int], rim: int) -> Tensor:
    """Mark the voxels within `rim` of those in which a point lies."""
    marked = torch.zeros(*shape, dtype=torch.bool)
    for part in points.split(POINTS_AT_ONCE):
        places = ((part - low) / size).floor().long()
        inside = ((places >= 0) & (places < torch.tensor(shape))).all(-1)
        marked[places[inside].unbind(-1)] = True
    for axis in range(3):
        marked = _spread(marked, axis, rim)
    return marked


def _spread(marked: Tensor, axis: int, steps: int) -> Tensor:
    result = marked.clone()
    length = marked.shape[axis]
    for step in range(1, min(steps, length - 1) + 1):
        result.narrow(axis, step, length - step).logical_or_(marked.narrow(axis, 0, length - step))
        result.narrow(axis, 0, length - step).logical_or_(marked.narrow(axis, step, length - step))
    return result


def _surface(band: _Band, values: Tensor, known: Tensor) -> Mesh:
    from skimage.measure import marching_cubes

    dense, mask = torch.ones(band.near.shape), torch.zeros_like(band.near)
    dense[band.near], mask[band.near] = values, known
    crosses = bool((values[known] < 0).any() and (values[known] > 0).any())
    if crosses:
        inner = _surrounded(mask).numpy()
        crosses = bool(inner.any())
    if not crosses:
        raise InputError(
            "fuse_depths: the views agree on no surface; give a larger `voxel_size` or `truncation`"
        )
    vertices, faces, _, _ = marching_cubes(dense.numpy(), 0.0, mask=inner, gradient_direction="descent")
    vertices = band.low + (torch.from_numpy(vertices.copy()) + 0.5) * band.voxel_size
    return Mesh(vertices.float(), torch.from_numpy(faces.astype(np.int64)))


def _surrounded(mask: Tensor) -> Tensor:
    """Keep the voxels whose seven neighbours before them are known too: skimage asks at the last corner of a cube."""
    result = mask.clone()
    for axis in range(3):
        length = result.shape[axis]
        before = result.narrow(axis, 0, length - 1).clone()
        result.narrow(axis, 1, length - 1).logical_and_(before)
        result.narrow(axis, 0, 1).zero_()
    return result


def _at_vertices(mesh: Mesh, band: _Band, colors: Tensor) -> Tensor:
    """Take the color of the voxel in which each vertex lies."""
    number = torch.full(band.near.shape, -1, dtype=torch.int32)
    number[band.near] = torch.arange(len(colors), dtype=torch.int32)
    places = ((mesh.vertices - band.low) / band.voxel_size).floor().long()
    return colors[number[places.unbind(-1)].long()]
