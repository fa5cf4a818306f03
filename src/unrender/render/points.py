"""Rendering of point clouds."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.geometry.camera import Camera
from unrender.geometry.points import PointCloud
from unrender.render.mesh import downsample

CHUNK = 65_536


def render_points(
    cloud: PointCloud,
    camera: Camera,
    radius: float = 1.5,
    *,
    color: tuple[float, float, float] = (0.16, 0.36, 0.60),
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    supersampling: int = 1,
) -> Float[Tensor, "height width 3"]:
    """Render a point cloud as discs of `radius` pixels with hidden points removed.

    Points have their own colors, or `color` if the cloud has none. Meant for visualization.
    Differentiable in: nothing.
    """
    fine = camera.resize(camera.height * supersampling, camera.width * supersampling)
    xy, depth = fine.project(cloud.points.detach()).split((2, 1), -1)
    reach = int(radius * supersampling + 1)
    steps = torch.arange(-reach, reach + 1, dtype=xy.dtype, device=xy.device)
    nearest = torch.full((fine.height * fine.width,), -1, device=xy.device)
    farthest_first = depth[:, 0].argsort(descending=True, stable=True)
    farthest_first = farthest_first[depth[farthest_first, 0] > 0]
    ranks = torch.arange(len(farthest_first), device=xy.device)
    for chunk, rank in zip(farthest_first.split(CHUNK), ranks.split(CHUNK), strict=True):
        pixels = xy[chunk, None].floor() + torch.cartesian_prod(steps, steps)
        column, row = pixels.unbind(-1)
        covered = (pixels + 0.5 - xy[chunk, None]).norm(dim=-1) <= radius * supersampling
        covered &= (column >= 0) & (column < fine.width) & (row >= 0) & (row < fine.height)
        flat = (row * fine.width + column)[covered].long()
        nearest.scatter_reduce_(0, flat, rank[:, None].expand(covered.shape)[covered], "amax")
    colors = cloud.colors[:, :3] if cloud.colors is not None else xy.new_tensor(color).expand(len(xy), 3)
    image = xy.new_tensor(background).repeat(len(nearest), 1)
    visible = nearest >= 0
    image[visible] = colors.to(xy.dtype)[farthest_first[nearest[visible]]]
    return downsample(image.view(fine.height, fine.width, 3), supersampling)
